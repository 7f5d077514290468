// Statements, white space, limits and messages of chat templates.
import { describe, expect, test } from "bun:test";
import { TinferError } from "../../src/core/errors.ts";
import { compileChatTemplate } from "../../src/template/chat-template.ts";

const now = new Date("2025-07-26T12:34:56");

function render(source: string, variables: Record<string, unknown> = {}): string {
  return compileChatTemplate(source).render({ messages: [], ...variables }, now);
}

function failure(source: string, variables: Record<string, unknown> = {}): TinferError {
  try {
    render(source, variables);
  } catch (error) {
    if (error instanceof TinferError) return error;
    throw error;
  }
  throw new Error(`no failure: ${source}`);
}

/** Left: template; right: what Jinja2 with trim_blocks and lstrip_blocks prints. */
const whitespaceRows: readonly (readonly [string, string])[] = [
  ["  {% if 1 %}  a  {% endif %}  \n  b", "  a    \n  b"],
  ["{% if 1 %}\n  {% if 1 %}\nx\n  {% endif %}\n{% endif %}\ny\n", "x\ny"],
  ["  {%+ if 1 %}a\n  {%+ endif %}\nb", "  a\n  b"],
  ["{% if 1 +%}\na{% endif +%}\nb", "\na\nb"],
  ["a  {%- if 1 -%}  b  {%- endif -%}  c", "abc"],
  ["a {#- c -#} b\n  {# d #}\nc", "ab\nc"],
  ["{{ 1 -}}  \n {{- 2 }}  {{ 3 }}", "12  3"],
  ["a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\nb", "a\n\n  {{ x }}\nb"],
  ["a\r\nb\r{% if 1 %}\r\nc{% endif %}\r\n", "a\nb\nc"],
  ["{{ '{% not a tag %}' }}{{ {'a': {'b': '}}'}}['a']['b'] }}", "{% not a tag %}}}"],
];

const statementRows: readonly (readonly [string, string])[] = [
  ["{% set x = 1 %}{% for i in [2, 3] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}", "3 4 1"],
  [
    "{% set n = namespace(x=0) %}{% for i in [2, 3] %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}",
    "5",
  ],
  [
    "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}{{ x }}{{ loop.last }} {% endfor %}",
    "11False 23True ",
  ],
  ["{% for x in [] %}a{% else %}none{% endfor %}", "none"],
  ["{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"],
  ["{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"],
  ["{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"],
  [
    "{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "123",
  ],
  [
    "{% macro f(a, b=a, c='z') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}" +
      "{{ f(1) }} {{ f(1, 2, 3, 4, d=5) }}",
    "11z(){} 123(4,){'d': 5}",
  ],
  ["{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x }}!{% endcall %}", "[1!]"],
  ["{% set x | upper %} a {% endset %}{{ x }}", " A "],
  ["{% with a = 1 %}{{ a }}{% endwith %}{{ a is defined }}", "1False"],
  ["{% filter upper %}a{% endfilter %}", "A"],
  ["{% generation %}{% set z = 1 %}a{% endgeneration %}{{ z is defined }}", "aFalse"],
  ["{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}", "TrueTrueFalse"],
  [
    "{{ strftime_now('%d %b %Y, %H:%M %A day %j, %-m') }}",
    "26 Jul 2025, 12:34 Saturday day 207, 7",
  ],
  ["{% if false %}{{ 1 | unknown_filter }}{% endif %}ok", "ok"],
];

describe("chat templates", () => {
  test("strip white space as Jinja2 does", () => {
    for (const [source, text] of whitespaceRows)
      expect([source, render(source)]).toEqual([source, text]);
  });

  test("run statements as Jinja2 does", () => {
    for (const [source, text] of statementRows) {
      expect([source, render(source)]).toEqual([source, text]);
    }
  });

  test("raise_exception surfaces the template's own message", () => {
    const error = failure("{{ raise_exception('Roles must alternate') }}");
    expect(error.code).toBe("template");
    expect(error.message).toBe("Roles must alternate");
    expect(error.hint).toContain("messages");
  });

  test("messages name line and text", () => {
    expect(failure("a\nb {{ x.y.z }}\n").message).toContain("at line 2: 'x' is undefined\n  2 | b");
    expect(failure("a\n{% if x %}\n{{ 1 + }}{% endif %}").message).toContain("at line 3");
    expect(failure("{% for x in y %}").message).toContain("unexpected end of template");
    expect(failure("{{ 'open }}").message).toContain("line 1");
    expect(failure("{{ 1 | nope }}").message).toContain("No filter named 'nope'");
  });

  test("forbid what the sandbox forbids", () => {
    for (const source of [
      "{% set l = [] %}{{ l.append(1) }}",
      "{{ {}.update({}) }}",
      "{{ ''.__class__() }}",
      "{{ range(100001) }}",
      "{% set d = {} %}{% set d.x = 1 %}",
    ]) {
      expect(failure(source).code).toBe("template");
    }
  });

  test("stop at their limits", () => {
    const big = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    const deep = "{% if 1 %}".repeat(500) + "{% endif %}".repeat(500);
    const doubling =
      "{% set n = namespace(s='ab') %}" +
      "{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}";
    const recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    const sources = [
      big,
      deep,
      doubling,
      recursion,
      `{{ ${"(".repeat(9999)}1${")".repeat(9999)} }}`,
      `{{ ${"not ".repeat(99999)}1 }}`,
      "{{ 'a' * 10 ** 10 }}",
      "{{ 10 ** 99999 }}",
      "{{ '%999999999d' % 1 }}",
      "{{ 'x' | center(999999999) }}",
      "x".repeat(2 ** 20 + 1),
    ];
    for (const source of sources) expect(failure(source).code).toBe("template");
  });

  test("are compiled once and keep nothing between renderings", () => {
    const source =
      "{% set n = namespace(x=0) %}" +
      "{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}";
    const template = compileChatTemplate(source);
    const messages = [{ role: "user", content: "a" }];
    expect(template.source).toBe(source);
    expect(template.render({ messages })).toBe("1");
    expect(template.render({ messages })).toBe("1");
  });
});
