// Changes to a transcript, as functions without effects: each takes segments and gives new ones.
// What is not changed stays the same object; so undo costs nothing, and what must be saved is seen at once.

// Writing without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han.
const UNSPACED = "\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3040-\\u30ff\\u3400-\\u9fff\\uf900-\\ufaff";
const WORDS = new RegExp(`\\s*(?:[${UNSPACED}]\\p{M}*|[^\\s${UNSPACED}]+)`, "gu");
const MOST_COMPARED = 4_000_000; // cells of the table in which two texts are compared

export function newUid() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return `n${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The words of a text, each with the space before it; what is left at the end belongs to the last one. */
export function wordsOf(text) {
  return text.match(WORDS) || [];
}

/** Words cut where `wordsOf` cuts; the time of a word that holds several is divided by their letters. */
function pieces(words) {
  return words.flatMap((word) => {
    const parts = wordsOf(word.word);
    if (parts.length < 2) return [word];
    const step = (word.end - word.start) / word.word.length;
    let at = word.start;
    return parts.map((part) => {
      const start = at;
      at = start + step * part.length;
      return { ...word, word: part, start: round(start), end: round(at) };
    });
  });
}

const round = (seconds) => Math.round(seconds * 1000) / 1000;

/** Pairs of indices of words that are the same in both lists, in order: a longest common subsequence. */
export function matches(a, b) {
  let first = 0;
  while (first < a.length && first < b.length && a[first] === b[first]) first++;
  let last = 0;
  while (last < a.length - first && last < b.length - first && a[a.length - 1 - last] === b[b.length - 1 - last]) last++;
  const pairs = Array.from({ length: first }, (_, i) => [i, i]);
  const n = a.length - first - last;
  const m = b.length - first - last;
  if (n * m <= MOST_COMPARED) {
    const table = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        table[i][j] = a[first + i] === b[first + j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
      }
    }
    for (let i = 0, j = 0; i < n && j < m;) {
      if (a[first + i] === b[first + j]) pairs.push([first + i++, first + j++]);
      else if (table[i + 1][j] >= table[i][j + 1]) i++;
      else j++;
    }
  }
  for (let i = last; i > 0; i--) pairs.push([a.length - i, b.length - i]);
  return pairs;
}

/** A segment with another text: words that stay keep their times, new ones share the time between these. */
export function retext(segment, text) {
  if (text === segment.text) return segment;
  const before = pieces(segment.words);
  const wanted = wordsOf(text);
  const placed = wanted.map(() => null);
  for (const [i, j] of matches(before.map((word) => word.word.trim()), wanted.map((word) => word.trim()))) {
    placed[j] = { ...before[i], word: wanted[j] };
  }
  for (let i = 0; i < placed.length; i++) {
    if (placed[i]) continue;
    let end = i;
    while (end < placed.length && !placed[end]) end++;
    const from = i ? placed[i - 1].end : segment.start;
    const to = Math.max(end < placed.length ? placed[end].start : segment.end, from);
    const letters = wanted.slice(i, end).reduce((sum, word) => sum + word.length, 0);
    for (let at = from; i < end; i++) {
      const start = at;
      at += ((to - from) * wanted[i].length) / letters;
      placed[i] = { word: wanted[i], start: round(start), end: round(at), probability: 1, confidence: 1 };
    }
    i--;
  }
  return { ...segment, text, words: placed, edited: true };
}

/** Two segments of one, cut at a place in its text. */
export function split(segment, at) {
  const texts = [segment.text.slice(0, at), segment.text.slice(at)];
  const whole = retext(segment, `${texts[0].trimEnd()} ${texts[1].trimStart()}`);
  const n = wordsOf(texts[0]).length;
  const [left, right] = [whole.words.slice(0, n), whole.words.slice(n)];
  const from = left.length ? left[left.length - 1].end : segment.start;
  const to = right.length ? right[0].start : segment.end;
  const cut = round(left.length && right.length ? (from + to) / 2 : left.length ? from : right.length ? to : (from + to) / 2);
  return [
    { ...whole, text: texts[0].trimEnd(), words: left, end: cut, edited: true },
    { ...whole, uid: newUid(), text: right.length ? ` ${texts[1].trimStart()}` : "", words: spaced(right), start: cut, edited: true },
  ];
}

function spaced(words) {
  return words.map((word, i) => (i || word.word.startsWith(" ") ? word : { ...word, word: ` ${word.word}` }));
}

/** One segment of two. */
export function join(first, second) {
  const words = spaced(second.words);
  const text = second.text.trim() ? `${first.text.trimEnd()} ${second.text.trimStart()}` : first.text;
  const last = first.words.length ? [{ ...first.words[first.words.length - 1] }] : [];
  if (last.length) last[0].word = last[0].word.trimEnd();
  const joined = { ...first, text, words: [...first.words.slice(0, -1), ...last, ...words], end: Math.max(first.end, second.end), edited: true };
  if (!(first.checked && second.checked)) delete joined.checked;
  return joined;
}

/** A segment at another time; its words go along, in proportion. */
export function retime(segment, start, end) {
  const scale = segment.end > segment.start ? (end - start) / (segment.end - segment.start) : 0;
  const moved = (time) => round(Math.min(Math.max(start + (time - segment.start) * scale, start), end));
  const words = segment.words.map((word) => ({ ...word, start: moved(word.start), end: moved(word.end) }));
  return { ...segment, start, end, words, edited: true };
}

/** A segment with other edges: its words stay where they are, but none lies outside. */
export function trim(segment, start, end) {
  const inside = (time) => Math.min(Math.max(time, start), end);
  const words = segment.words.map((word) => ({ ...word, start: inside(word.start), end: inside(word.end) }));
  return { ...segment, start, end, words, edited: true };
}

/** Whether two segments are about the same sound, and not only beside each other. */
function touch(a, b) {
  return Math.min(a.end, b.end) - Math.max(a.start, b.start) > 0.3 * Math.min(a.end - a.start, b.end - b.start);
}

/** Segments in which one is again as it was heard; what was cut or joined there is taken back, too. */
export function restore(segments, original, uid) {
  let mine = segments.filter((one) => one.uid === uid);
  let heard = [];
  for (let n = -1; n !== mine.length + heard.length;) {
    n = mine.length + heard.length;
    heard = original.filter((one) => mine.some((other) => one.uid === other.uid || touch(one, other)));
    mine = segments.filter((one) => mine.includes(one) || heard.some((other) => one.uid === other.uid || touch(one, other)));
  }
  if (!heard.length) return segments;
  const at = segments.indexOf(mine[0]);
  const isOther = (one) => !mine.includes(one);
  return [...segments.slice(0, at).filter(isOther), ...heard, ...segments.slice(at).filter(isOther)];
}

/** A pattern that finds what somebody typed. */
export function pattern(query, { matchCase = false, wholeWords = false } = {}) {
  const literal = query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const bounded = wholeWords ? `(?<![\\p{L}\\p{N}])${literal}(?![\\p{L}\\p{N}])` : literal;
  return new RegExp(bounded, matchCase ? "gu" : "giu");
}

/** Every place where a text is found: {uid, index, at, end, start}, `start` being its time. */
export function findAll(segments, query, how) {
  if (!query.trim()) return [];
  const wanted = pattern(query, how);
  return segments.flatMap((segment, index) => [...segment.text.matchAll(wanted)].map((found) => ({
    uid: segment.uid, index, at: found.index, end: found.index + found[0].length, start: timeAt(segment, found.index),
  })));
}

/** The time at which a place of a segment's text is said. */
export function timeAt(segment, at) {
  let length = 0;
  for (const word of segment.words) {
    length += word.word.length;
    if (length > at) return word.start;
  }
  return segment.start;
}

/** Segments in which a text is replaced everywhere, or at one place that `findAll` gave. */
export function replace(segments, query, by, how, only = null) {
  const wanted = pattern(query, how);
  return segments.map((segment) => {
    if (only) return segment.uid === only.uid ? retext(segment, segment.text.slice(0, only.at) + by + segment.text.slice(only.end)) : segment;
    return retext(segment, segment.text.replace(wanted, () => by));
  });
}

/** The splices that make `to` of `from`; segments that are the same object in both are not mentioned. */
export function splices(from, to) {
  const kept = new Set(to);
  const known = new Set(from);
  const found = [];
  let after = null;
  for (let i = 0, j = 0; i < from.length || j < to.length;) {
    if (i < from.length && from[i] === to[j]) {
      after = to[j].uid;
      i++;
      j++;
      continue;
    }
    const remove = [];
    const insert = [];
    while (i < from.length && !kept.has(from[i])) remove.push(from[i++]);
    while (j < to.length && !known.has(to[j])) insert.push(to[j++]);
    if (!remove.length && !insert.length) throw new Error("segments changed places");
    found.push({ after, remove, insert });
    if (insert.length) after = insert[insert.length - 1].uid;
  }
  return found;
}

/** Apply splices to a newer version of the segments; null where one touches what somebody else has changed. */
export function rebase(segments, changes) {
  let result = segments;
  for (const { after, remove, insert } of changes) {
    const begin = after === null ? 0 : result.findIndex((segment) => segment.uid === after) + 1;
    if (after !== null && !begin) return null;
    const there = result.slice(begin, begin + remove.length);
    if (there.some((segment, i) => !isSame(segment, remove[i])) || there.length < remove.length) return null;
    result = [...result.slice(0, begin), ...insert, ...result.slice(begin + remove.length)];
  }
  return result;
}

/** Apply splices whatever has become of their places: mine win, in the order of time. */
export function force(segments, changes) {
  const gone = new Set(changes.flatMap(({ remove, insert }) => [...remove, ...insert].map((segment) => segment.uid)));
  const mine = changes.flatMap(({ insert }) => insert);
  return [...segments.filter((segment) => !gone.has(segment.uid)), ...mine].sort((a, b) => a.start - b.start);
}

function isSame(a, b) {
  return a.uid === b.uid && a.text === b.text && a.start === b.start && a.end === b.end && (a.speaker ?? null) === (b.speaker ?? null)
    && Boolean(a.checked) === Boolean(b.checked);
}
