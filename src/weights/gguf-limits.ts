// Every bound that the GGUF reader puts on what a file may claim, with its reason.
// A file past one of them is refused before anything is allocated for it.

export const ggufLimits = {
  /**
   * Header bytes (metadata and tensor table). The largest vocabularies in use, 262k tokens with
   * 515k merges, take 20 MB; an embedded tokenizer.json adds 35 MB.
   */
  headerBytes: 256 * 2 ** 20,
  /** Key-value pairs. Files in use have 20 to 100; imatrix and adapter files a few hundred. */
  numPairs: 65_536,
  /** Bytes of a key; the format itself says 2^16 - 1. */
  keyBytes: 65_535,
  /** Bytes of one string value: an embedded tokenizer.json is the longest known (35 MB). */
  stringBytes: 64 * 2 ** 20,
  /** Elements of an array of numbers or strings; merges reach 2^19. */
  arrayLength: 2 ** 24,
  /** Elements of an array of booleans: they become JavaScript values; one per layer is usual. */
  booleanArrayLength: 2 ** 20,
  /** Arrays inside arrays, in the whole file: they cost an object each and no known key has any. */
  numNestedArrays: 65_536,
  /** Depth of arrays in arrays; parsing recurses once per level. */
  arrayDepth: 4,
  /** Tensors of one file. Unmerged mixtures of experts reach 60k. */
  numTensors: 2 ** 18,
  /** Bytes of a tensor name. The format says 64; some converters write longer ones. */
  tensorNameBytes: 1_024,
  /** Dimensions of a tensor, as the format says. */
  numDimensions: 4,
  /** Elements of one tensor: times 8 bytes this stays exact in a double (below 2^53). */
  tensorElements: 2 ** 49,
  /** The format asks for a multiple of 8; above 1 MiB the padding would only hide bytes. */
  minAlignment: 8,
  maxAlignment: 2 ** 20,
  /** Files of a split model: the largest published have under 200. */
  numShards: 1_024,
} as const;

/** Alignment of tensors where the file has no `general.alignment`. */
export const defaultAlignment = 32;
