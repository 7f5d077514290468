// What a conversation is made of, in the shape that chat templates expect.

export interface ContentPart {
  type: string;
  [key: string]: unknown;
}

export interface ChatMessage {
  role: string;
  content: string | null | readonly ContentPart[];
  name?: string;
  tool_calls?: readonly unknown[];
  tool_call_id?: string;
  reasoning_content?: string;
  [key: string]: unknown;
}
