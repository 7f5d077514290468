// The metadata of a model file as every reader sees it: GGUF key-value pairs with typed getters.
// Who parses the file is `gguf.ts`; who understands the keys is `models/model-config.ts`.

/** Numeric arrays stay typed arrays; string arrays are decoded lazily (`strings.ts`). */
export type MetadataValue =
  | number
  | bigint
  | boolean
  | string
  | readonly string[]
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | readonly boolean[]
  | readonly MetadataValue[];

export type Metadata = ReadonlyMap<string, MetadataValue>;
