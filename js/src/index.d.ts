/** image2sentence in the browser: a picture and words become a query vector on the device itself. */

/** How a picture becomes the encoder's input; it belongs to the weights. See docs/formats.md. */
export interface Preprocessing {
  size: number;
  fit: "squash" | "crop";
  resample: "bilinear" | "bicubic" | "lanczos";
  mean: [number, number, number];
  std: [number, number, number];
  /** What sides are resized to before the middle is cut out; 0 or missing: `size`. */
  resize?: number;
}

/** The model folder's config.json. See docs/formats.md. */
export interface ModelConfig {
  format: number;
  vl: { name: string; revision: string; kind: string; fingerprint: string };
  light: string;
  learner: {
    kind: string;
    tokens: number;
    softmax: string;
    blocks: number;
    heads: number;
    width: number;
    gates: boolean;
  };
  template: string;
  /** Missing in folders of earlier versions. */
  space_settings?: string;
  /** SHA-256 of config.json without these digits; missing in folders of earlier versions. */
  checksum?: string;
  gallery_preprocessing: Preprocessing;
  query_preprocessing: Preprocessing;
  /** d, width of gallery and query vectors. */
  width: number;
  word_width: number;
  word_norm: number;
  head_length: number;
  max_length: number;
  /** Identity of the vector space: a gallery that was indexed with another one cannot be searched. */
  fingerprint: string;
  query_fingerprint: string;
  training: Record<string, unknown>;
  parity: Record<string, unknown>;
  /** How guiding phrases take part in queries; null or absent where the model has none. */
  fallback?: { low: number; high: number; weight: number } | null;
  guide?: { neighbours: number; temperature: number; low: number; high: number; residual: number } | null;
  /** How much of a picture's own sentence is in its gallery vector, 0 to below 1; absent in older models, which have 0. */
  sentence_share?: number;
  files: Record<string, string>;
}

/**
 * A picture file (JPEG, PNG, WebP, GIF or BMP, as Blob, File or bytes), or pixels. Bytes given to an encoder in a
 * worker are copied.
 */
export type Picture = Blob | ArrayBuffer | ArrayBufferView | ImageData | ImageBitmap;

/** Pseudo-words that the text encoder reads: a sentence, or some of its rows (those left out do not count). */
export interface PseudoWords {
  /** (n, w) float32, row by row. */
  tokens: Float32Array;
  /** [n, w], n from 1 to L. */
  dims: [number, number];
}

/** What a picture says: L pseudo-words, and why. Keep it, to ask about the same picture again with other words. */
export interface Sentence extends PseudoWords {
  /** (L, H, W) float32 maps, each of sum 1: where each pseudo-word looks. */
  attention: Float32Array;
  /** [L, H, W] */
  attentionDims: [number, number, number];
  /** (L,) float32 from 0 (muted) to 1 (fully used). */
  gates: Float32Array;
}

/** How several things become one query. */
export interface ComposeOptions {
  /** Each picture's weight, above 0. Default: all alike. */
  weights?: number[];
  /** From 0 (the pictures alone) over 0.5 (the composition, the default) to 1 (the words alone). */
  balance?: number;
}

/** A word that the model does not know, and up to three known words that it may be a misspelling of. */
export interface UnknownWord {
  word: string;
  near: string[];
}

/** How far a file has come. `total` is null where the server does not tell it. */
export interface Progress {
  /** config.json, tokenizer.json, onnx/query_image.onnx or onnx/query_text.onnx */
  file: string;
  /** Bytes so far. */
  loaded: number;
  total: number | null;
  /** Whether the browser had kept the file. */
  cached: boolean;
}

export interface LoadOptions {
  /**
   * Where the files of onnxruntime-web/dist are served (ort.wasm.bundle.min.mjs and ort-wasm-simd-threaded.wasm are
   * fetched), or the module onnxruntime-web itself (not in a worker). Default: as a bundler resolves it.
   */
  runtime?: string | URL | typeof import("onnxruntime-web");
  /** Encode in a worker, so that the page stays quick. Default: false. */
  worker?: boolean;
  /**
   * Threads of WebAssembly, where the page is cross-origin isolated (elsewhere there is one). Takes effect with the
   * first encoder of a page or worker. Default: half the cores, at most 4.
   */
  threads?: number;
  /** Keep the files in the browser (Cache API), under their checksums. Default: true. */
  cache?: boolean;
  /** Headers for the model folder's files, such as Authorization. */
  headers?: Record<string, string>;
  /** Stops loading; the promise is rejected with an AbortError. */
  signal?: AbortSignal;
  /** Called while files arrive. */
  progress?: (progress: Progress) => void;
}

/** The query side of a model, as Python's OnnxEncoder. */
export interface QueryEncoder {
  readonly config: ModelConfig;

  /**
   * A picture's sentence.
   * @throws {ImageError} it is damaged, too large (120 million pixels), or of a format this browser does not read
   */
  encodeSentence(picture: Picture): Promise<Sentence>;

  /**
   * The query vector: (d,) float32 of length 1. Without sentence it is text-to-image search; with empty words, image
   * search. Nothing in the words is special.
   * @throws {QueryError} neither picture nor words, words too long, or a sentence of another model
   */
  encodeQuery(sentence: PseudoWords | null, words: string): Promise<Float32Array>;

  /**
   * Any number of pictures (or sentences) and words -> (d,) float32 of length 1: each is composed with the words, and
   * the query is their weighted mean. As image2sentence.query.compose.
   * @throws {ImageError | QueryError}
   */
  compose(
    references: Array<Picture | PseudoWords>,
    words: string,
    options?: ComposeOptions,
  ): Promise<Float32Array>;

  /** The words that are not in the model's vocabulary, as written, in order, once each. */
  unknownWords(words: string): Promise<string[]>;

  /** The same words, each with the known words that it may be a misspelling of, best first. */
  notUnderstood(words: string): Promise<UnknownWord[]>;

  /**
   * Gives the memory back (and ends the worker). What is asked from then on is refused with a ModelError; a second
   * call does nothing.
   */
  release(): Promise<void>;
}

/**
 * The query side of the model folder at a URL. Its config.json is asked for each time, and every other file fetched
 * when its checksum there is new; without network, what was kept is used.
 * @throws {ModelError} the folder cannot be reached, or is incomplete, damaged, of another format or tokenizer
 */
export function loadEncoder(url: string | URL, options?: LoadOptions): Promise<QueryEncoder>;

/** Base of every error that this module throws on purpose. */
export class Image2SentenceError extends Error {}
/** A model folder that cannot be reached, is incomplete, damaged, or of another format version. */
export class ModelError extends Image2SentenceError {}
/** A picture that cannot be read. */
export class ImageError extends Image2SentenceError {}
/** A query that cannot be answered: empty, or too long. */
export class QueryError extends Image2SentenceError {}
/** A setting with an impossible value. */
export class ConfigError extends Image2SentenceError {}
