// A chat in a terminal whose first message is worked on for ever, as by a command that nothing
// stops.
import { InputHistory } from "../../src/chat/input-history.ts";
import { TerminalChat } from "../../src/cli/chat-terminal.ts";

const terminal = new TerminalChat(new InputHistory(undefined));
await terminal.read();
terminal.progress({ label: "busy", done: 1, total: 2, unit: "bytes" });
for (;;) await Bun.sleep(1000);
