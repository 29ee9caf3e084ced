// Doubtful places: words with a low confidence, and what the audit left for a person to decide.

export const LOW = 0.5;
export const MIDDLE = 0.75;
const REMAINING = ["doubtful", "uncovered"];

/** The class of a word by its confidence. */
export function level(word) {
  const confidence = word.confidence ?? word.probability ?? 1;
  return confidence < LOW ? "low" : confidence < MIDDLE ? "middle" : "";
}

/** All places that nobody has accepted yet, in order: {start, end, uid?, finding?}. */
export function doubts(segments, findings) {
  const places = findings.flatMap((finding, index) => (
    finding.state === "open" && REMAINING.includes(finding.kind) ? [{ start: finding.start, end: finding.end, finding: index }] : []));
  for (const segment of segments) places.push(...within(segment));
  return places.sort((a, b) => a.start - b.start);
}

const known = new WeakMap(); // of segments, which never change

function within(segment) {
  if (!known.has(segment)) known.set(segment, segment.checked ? [] : runs(segment));
  return known.get(segment);
}

/** The runs of words with a low confidence. */
function runs({ words, uid }) {
  const found = [];
  for (let i = 0; i < words.length; i++) {
    if (level(words[i]) !== "low") continue;
    let end = i;
    while (end + 1 < words.length && level(words[end + 1]) === "low") end++;
    found.push({ start: words[i].start, end: words[end].end, uid });
    i = end;
  }
  return found;
}

export const KINDS = {
  doubtful: "This text failed every check; the best attempt was kept",
  uncovered: "There is speech here without text",
  recovered: "This was missing at first, and heard a second time",
  dropped: "An invented text was removed here",
  loop: "A text that repeated itself was stopped here",
  language: "The language was in doubt",
};
