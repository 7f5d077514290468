// The activation functions of the reference backend, in float64.
import type { Activation, Gate, UnaryFunction } from "../plan/ops.ts";

/** gpt-oss's clamp and its sharper sigmoid (model card, arXiv 2508.10925). */
const oaiLimit = 7;
const oaiAlpha = 1.702;

export function gated(gate: Gate, g: number, u: number): number {
  if (gate !== "swiglu_oai") return activate(gate, g) * u;
  const x = Math.min(g, oaiLimit);
  const y = Math.min(oaiLimit, Math.max(-oaiLimit, u));
  return (x / (1 + Math.exp(-oaiAlpha * x))) * (y + 1);
}

export function unaryOf(name: UnaryFunction, x: number, parameter: number): number {
  if (name === "softcap") return parameter * Math.tanh(x / parameter);
  return name === "scale" ? parameter * x : activate(name, x);
}

export function activate(activation: Activation, x: number): number {
  switch (activation) {
    case "silu":
      return x / (1 + Math.exp(-x));
    case "gelu_tanh":
      return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
    case "gelu_erf":
      return 0.5 * x * (1 + erf(x / Math.SQRT2));
    case "relu":
      return Math.max(0, x);
    case "sigmoid":
      return 1 / (1 + Math.exp(-x));
    case "relu_squared":
      return Math.max(0, x) ** 2;
  }
}

/** Error function: Maclaurin series near zero, then a continued fraction (DLMF 7.6, 7.9). */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 200; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}
