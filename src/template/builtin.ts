// Chat templates by name, for models whose file has none or a broken one. They cover text
// conversations; what they cannot express (tools, images) they refuse, never drop.

/** Text of a message's content, given as a string or as parts. */
const textMacro = `{%- macro text(message) -%}
{%- if message.tool_calls -%}
  {{- raise_exception('this template has no form for tool calls; use the template of the model') -}}
{%- elif message.content is string -%}
  {{- message.content -}}
{%- elif message.content is not none and message.content is defined -%}
  {%- for part in message.content -%}
    {%- if part.type != 'text' -%}
      {{- raise_exception('this template takes text only, not ' ~ part.type) -}}
    {%- endif -%}
    {{- part.text -}}
  {%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
  {{- raise_exception('this template has no form for tools; use the template of the model') -}}
{%- endif -%}
`;

/** Puts a leading system message into \`system\` and the other messages into \`turns\`. */
const splitSystem = `{%- if messages and messages[0].role == 'system' -%}
  {%- set system = text(messages[0]) | trim -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}
  {%- set turns = messages -%}
{%- endif -%}
`;

const refuseRole = "{{- raise_exception('this template has no role ' ~ message.role) -}}";

/** Turns of a model that knows only user and assistant: the system text joins the first user. */
function userAndAssistant(user: string, assistant: string): string {
  return `{%- for message in turns -%}
  {%- if message.role == 'user' -%}
    ${user}
  {%- elif message.role == 'assistant' -%}
    ${assistant}
  {%- else -%}
    ${refuseRole}
  {%- endif -%}
{%- endfor -%}
`;
}

const templates: Readonly<Record<string, string>> = {
  alpaca: `${textMacro}${splitSystem}{{- bos_token -}}
{%- if system %}{{ system + '\\n\\n' }}{% endif -%}
${userAndAssistant(
  `{{- '### Instruction:\\n' + text(message) | trim + '\\n\\n' -}}`,
  `{{- '### Response:\\n' + text(message) | trim ~ eos_token ~ '\\n\\n' -}}`,
)}{%- if add_generation_prompt %}{{ '### Response:\\n' }}{% endif -%}`,

  chatml: `${textMacro}{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\\n' + text(message) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}`,

  "command-r": `${textMacro}{{- bos_token -}}
{%- set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} -%}
{%- for message in messages -%}
  {%- if message.role not in names -%}${refuseRole}{%- endif -%}
  {{- '<|START_OF_TURN_TOKEN|><|' + names[message.role] + '_TOKEN|>' -}}
  {{- text(message) | trim + '<|END_OF_TURN_TOKEN|>' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif -%}`,

  deepseek: `${textMacro}${splitSystem}{{- bos_token -}}{{- system -}}
${userAndAssistant(
  `{{- '<｜User｜>' + text(message) -}}`,
  `{{- '<｜Assistant｜>' + text(message) + '<｜end▁of▁sentence｜>' -}}`,
)}{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif -%}`,

  gemma: `${textMacro}${splitSystem}{{- bos_token -}}
{%- set prefix = system + '\\n\\n' if system else '' -%}
${userAndAssistant(
  `{{- '<start_of_turn>user\\n' + (prefix if loop.first else '') -}}
    {{- text(message) | trim + '<end_of_turn>\\n' -}}`,
  `{{- '<start_of_turn>model\\n' + text(message) | trim + '<end_of_turn>\\n' -}}`,
)}{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif -%}`,

  granite: `${textMacro}{%- for message in messages -%}
  {{- '<|start_of_role|>' + message.role + '<|end_of_role|>' -}}
  {{- text(message) + '<|end_of_text|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif -%}`,

  llama2: `${textMacro}${splitSystem}
{%- set prefix = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if system else '' -%}
${userAndAssistant(
  `{{- bos_token ~ '[INST] ' + (prefix if loop.first else '') -}}
    {{- text(message) | trim + ' [/INST]' -}}`,
  `{{- ' ' + text(message) | trim + ' ' ~ eos_token -}}`,
)}`,

  llama3: `${textMacro}{{- bos_token -}}{%- for message in messages -%}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
  {{- text(message) | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}`,

  mistral: `${textMacro}${splitSystem}{{- bos_token -}}
{%- set prefix = system + '\\n\\n' if system else '' -%}
${userAndAssistant(
  `{{- '[INST] ' + (prefix if loop.first else '') + text(message) + ' [/INST]' -}}`,
  `{{- ' ' + text(message) | trim ~ eos_token -}}`,
)}`,

  phi3: `${textMacro}{%- for message in messages -%}
  {{- '<|' + message.role + '|>\\n' + text(message) + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif -%}`,

  plain: `${textMacro}{{- bos_token -}}{%- for message in messages -%}
  {{- text(message) -}}
{%- endfor -%}`,

  vicuna: `${textMacro}${splitSystem}{{- bos_token -}}
{%- if system %}{{ system + '\\n\\n' }}{% endif -%}
${userAndAssistant(
  `{{- 'USER: ' + text(message) | trim + '\\n' -}}`,
  `{{- 'ASSISTANT: ' + text(message) | trim ~ eos_token ~ '\\n' -}}`,
)}{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif -%}`,

  zephyr: `${textMacro}{%- for message in messages -%}
  {{- '<|' + message.role + '|>\\n' + text(message) ~ eos_token ~ '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif -%}`,
};

export function builtinTemplateNames(): string[] {
  return Object.keys(templates);
}

export function builtinTemplate(name: string): string | undefined {
  return Object.hasOwn(templates, name) ? templates[name] : undefined;
}
