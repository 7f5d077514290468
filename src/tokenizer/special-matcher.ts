// Finds the special tokens that a text spells out. A longer token wins over a shorter one that
// overlaps it, wherever they begin; of the same token the first in the text wins.
import { TokenFlag, type Vocabulary } from "./vocabulary.ts";

/** Either ordinary text or one special token. */
export type Fragment = { text: string } | { tokenId: number };

interface Match {
  tokenId: number;
  start: number;
  end: number;
}

/** One step of the trie: the nodes that follow by UTF-16 unit. */
interface TrieNode {
  next: Map<number, TrieNode>;
  /** Place of the token that ends here in the order of tokens, or -1. */
  order: number;
}

const FREE = 0;
const TAKEN = 1;

export class SpecialMatcher {
  private readonly vocabulary: Vocabulary;
  /** Longest text first. */
  private readonly tokenIds: number[] = [];
  private readonly root: TrieNode = { next: new Map(), order: -1 };

  /** Matches tokens with any of `flags` and none of `exceptFlags`. */
  constructor(vocabulary: Vocabulary, flags: number, exceptFlags: number) {
    this.vocabulary = vocabulary;
    const own = vocabulary.flags;
    for (let id = 0; id < own.length; id++) {
      if ((own[id]! & flags) !== 0 && (own[id]! & exceptFlags) === 0) this.tokenIds.push(id);
    }
    const sizes = new Map(this.tokenIds.map((id) => [id, vocabulary.bytesOf(id).length]));
    this.tokenIds.sort((a, b) => sizes.get(b)! - sizes.get(a)! || a - b);
    this.tokenIds.forEach((id, order) => {
      this.insert(vocabulary.textOf(id), order);
    });
  }

  private insert(text: string, order: number): void {
    if (text.length === 0) return;
    let node = this.root;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      let next = node.next.get(unit);
      if (next === undefined) {
        next = { next: new Map(), order: -1 };
        node.next.set(unit, next);
      }
      node = next;
    }
    if (node.order < 0) node.order = order;
  }

  split(text: string): Fragment[] {
    const orders = this.findOrders(text);
    if (orders.length === 0) return text.length === 0 ? [] : [{ text }];
    const taken = new Uint8Array(text.length);
    const matches: Match[] = [];
    for (const order of orders) this.take(text, this.tokenIds[order]!, taken, matches);
    return assemble(text, taken, matches);
  }

  /** Which tokens occur at all: one pass over the text, however many tokens there are. */
  private findOrders(text: string): number[] {
    const found = new Set<number>();
    const firstUnits = this.root.next;
    for (let start = 0; start < text.length && firstUnits.size > 0; start++) {
      let node = firstUnits.get(text.charCodeAt(start));
      for (let end = start + 1; node !== undefined; end++) {
        if (node.order >= 0) found.add(node.order);
        if (end === text.length) break;
        node = node.next.get(text.charCodeAt(end));
      }
    }
    return [...found].sort((a, b) => a - b);
  }

  /** Takes the occurrences of one token in what is still free. */
  private take(text: string, tokenId: number, taken: Uint8Array, matches: Match[]): void {
    const token = this.vocabulary.textOf(tokenId);
    let start = text.indexOf(token);
    while (start >= 0) {
      const end = start + token.length;
      let lastTaken = end - 1;
      while (lastTaken >= start && taken[lastTaken] === FREE) lastTaken--;
      if (lastTaken < start) {
        taken.fill(TAKEN, start, end);
        this.strip(text, taken, tokenId, start, end);
        matches.push({ tokenId, start, end });
        start = text.indexOf(token, end);
      } else {
        start = text.indexOf(token, lastTaken + 1);
      }
    }
  }

  /** White space that a token swallows counts as taken: it belongs to no other fragment. */
  private strip(text: string, taken: Uint8Array, tokenId: number, start: number, end: number) {
    const isFreeSpace = (at: number) => taken[at] === FREE && isAsciiSpace(text.charCodeAt(at));
    if (this.vocabulary.has(tokenId, TokenFlag.stripsLeft)) {
      for (let at = start - 1; at >= 0 && isFreeSpace(at); at--) taken[at] = TAKEN;
    }
    if (this.vocabulary.has(tokenId, TokenFlag.stripsRight)) {
      for (let at = end; at < text.length && isFreeSpace(at); at++) taken[at] = TAKEN;
    }
  }
}

/** The matches in the order of the text, with the free text between them. */
function assemble(text: string, taken: Uint8Array, matches: Match[]): Fragment[] {
  matches.sort((a, b) => a.start - b.start);
  const fragments: Fragment[] = [];
  let at = 0;
  const pushFree = (end: number) => {
    while (at < end && taken[at] === TAKEN) at++;
    let last = at;
    while (last < end && taken[last] === FREE) last++;
    if (last > at) fragments.push({ text: text.slice(at, last) });
  };
  for (const match of matches) {
    pushFree(match.start);
    fragments.push({ tokenId: match.tokenId });
    at = match.end;
  }
  pushFree(text.length);
  return fragments;
}

/** As C's isspace: stripping knows no other white space. */
function isAsciiSpace(unit: number): boolean {
  return unit === 0x20 || (unit >= 0x09 && unit <= 0x0d);
}
