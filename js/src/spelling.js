// Known words spelt alike, ranked as Python's difflib.get_close_matches ranks them.

/**
 * The known words nearest in spelling, best first.
 * @param {string} word
 * @param {Iterable<string>} known
 * @param {number} most how many
 * @param {number} cutoff the least similarity, 0 to 1
 * @returns {string[]}
 */
export function near(word, known, most = 3, cutoff = 0.7) {
  const wanted = [...word.toLowerCase()];
  return Array.from(known, (one) => ({ one, alike: similarity([...one], wanted) }))
    .filter(({ alike }) => alike >= cutoff)
    .sort((a, b) => b.alike - a.alike || (a.one < b.one ? 1 : -1))
    .slice(0, most)
    .map(({ one }) => one);
}

/**
 * Twice the characters in matching blocks, of all characters (Ratcliff and Obershelp).
 * @param {string[]} a @param {string[]} b
 */
function similarity(a, b) {
  return (2 * matching(a, b)) / (a.length + b.length || 1);
}

/**
 * Characters in the longest common block, and in those on either side of it.
 * @param {string[]} a @param {string[]} b
 * @returns {number}
 */
function matching(a, b) {
  const [atA, atB, length] = longestBlock(a, b);
  if (!length) return 0;
  const before = matching(a.slice(0, atA), b.slice(0, atB));
  return before + length + matching(a.slice(atA + length), b.slice(atB + length));
}

/**
 * @param {string[]} a @param {string[]} b
 * @returns {[number, number, number]} where the longest common block begins in both, the first of several; its length
 */
function longestBlock(a, b) {
  /** @type {[number, number, number]} */
  let best = [0, 0, 0];
  let ending = new Uint32Array(b.length + 1); // length of the block that ends before each place of b
  a.forEach((character, i) => {
    const next = new Uint32Array(b.length + 1);
    b.forEach((other, j) => {
      if (character !== other) return;
      const length = (next[j + 1] = ending[j] + 1);
      if (length > best[2]) best = [i - length + 1, j - length + 1, length];
    });
    ending = next;
  });
  return best;
}
