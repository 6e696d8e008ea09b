// Known words that a word is a likely misspelling of, as Python's `likely_spellings` finds them.

const MAX_SUGGESTIONS = 3;
const LONGEST_WORD = 40;
const SHORT = 4;
const LONG = 8;
const CONFUSED = ["aeiouy", "sczx", "ckq", "ptbd", "fvw", "mn", "gj", "lr"];
const KEYBOARD = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

/**
 * Up to three known words, those of fewest mistakes first.
 * @param {string} word
 * @param {Iterable<string>} known
 * @returns {string[]}
 */
export function near(word, known) {
  const wanted = [...word.toLowerCase()];
  if (wanted.length < 2 || wanted.length > LONGEST_WORD) return [];
  const allowed = wanted.length >= LONG ? 2 : 1;
  const written = wanted.join("");
  return Array.from(known, (one) => ({ one, letters: [...one] }))
    .filter(({ one, letters }) => one !== written && mayBe(wanted, letters, allowed) && isMisspelt(wanted, letters, allowed))
    .map(({ one, letters }) => ({ one, mistakes: isMisspelt(wanted, letters, 1) ? 1 : 2 }))
    .sort((a, b) => a.mistakes - b.mistakes || (a.one < b.one ? -1 : 1))
    .slice(0, MAX_SUGGESTIONS)
    .map(({ one }) => one);
}

/**
 * @param {string[]} word @param {string[]} known @param {number} allowed
 */
function mayBe(word, known, allowed) {
  if (Math.abs(word.length - known.length) > allowed || known.length < 2) return false;
  return word[0] === known[0] || (word[0] === known[1] && word[1] === known[0]);
}

/**
 * Whether `word` from `at` on is `known` from `other` on with at most so many mistakes.
 * @param {string[]} word @param {string[]} known @param {number} mistakes @param {number} at @param {number} other
 * @returns {boolean}
 */
function isMisspelt(word, known, mistakes, at = 0, other = 0) {
  while (at < word.length && other < known.length && word[at] === known[other]) {
    at++;
    other++;
  }
  const short = word.length <= SHORT;
  if (at === word.length || other === known.length) {
    const rest = at === word.length ? known.slice(other) : word.slice(at);
    const before = at === word.length ? known[other - 1] : word[at - 1];
    return rest.length <= mistakes && (!short || rest.every((letter) => letter === before));
  }
  if (!mistakes) return false;
  const swapped = at + 1 < word.length && other + 1 < known.length && word[at] === known[other + 1] && word[at + 1] === known[other];
  if (swapped && isMisspelt(word, known, mistakes - 1, at + 2, other + 2)) return true;
  if ((!short || isDoubled(word, at)) && isMisspelt(word, known, mistakes - 1, at + 1, other)) return true;
  if ((!short || isDoubled(known, other)) && isMisspelt(word, known, mistakes - 1, at, other + 1)) return true;
  return !short && areConfused(word[at], known[other]) && isMisspelt(word, known, mistakes - 1, at + 1, other + 1);
}

/**
 * @param {string[]} word @param {number} at
 */
function isDoubled(word, at) {
  return word[at] === word[at - 1] || word[at] === word[at + 1];
}

/**
 * Whether one letter is easily written for another: by its sound, or beside it on the keyboard.
 * @param {string} letter @param {string} other
 */
function areConfused(letter, other) {
  const alike = CONFUSED.some((group) => group.includes(letter) && group.includes(other));
  return alike || KEYBOARD.some((row) => row.includes(letter + other) || row.includes(other + letter));
}
