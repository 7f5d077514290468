// The web chat at /: one HTML file with everything in it.
import type { Route } from "../server-state.ts";
import page from "./web-chat.html" with { type: "text" };

/** Nothing from elsewhere is loaded, and no other page may frame this one. */
const headers = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy":
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
};

export const pageRoute: Route = {
  method: "GET",
  path: "/",
  isPublic: true,
  handle: () => new Response(page as unknown as string, { headers }),
};
