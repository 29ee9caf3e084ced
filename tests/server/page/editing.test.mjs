// Changes to a transcript, run by node: nothing is lost, times stay in order, and splices give what they were made of.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const folder = new URL("../../../whisper/server/page/", import.meta.url);
const load = (name) => import(`data:text/javascript;base64,${readFileSync(new URL(name, folder)).toString("base64")}`);
const { findAll, force, join, matches, rebase, replace, restore, retext, retime, split, splices, timeAt, trim, wordsOf } = await load("document.js");
const { clock, seconds } = await load("time.js");
const { doubts } = await load("doubts.js");

let state = 7;
const random = (n) => {
  state = (state * 1103515245 + 12345) & 0x7fffffff;
  return state % n;
};
const said = (segment) => segment.words.map((word) => word.word).join("");
const heard = (uid, text, start = 0, step = 0.5) => {
  const words = wordsOf(text).map((word, i) => ({ word, start: start + i * step, end: start + (i + 1) * step, probability: 0.9, confidence: 0.4 }));
  return { uid, start, end: start + Math.max(words.length, 1) * step, text, words };
};
const isSound = (segment) => {
  assert.deepEqual(said(segment).split(/\s+/).filter(Boolean), segment.text.split(/\s+/).filter(Boolean));
  let before = segment.start;
  for (const word of segment.words) {
    assert.ok(word.start >= before - 0.002 && word.end >= word.start, JSON.stringify(segment));
    before = word.start;
  }
  assert.ok(segment.end >= segment.start);
};
const vocabulary = " one two three, four five. Six 東京 ไทย naïve don't".split(" ");
const randomText = (n) => Array.from({ length: random(n) }, () => ` ${vocabulary[random(vocabulary.length)]}`).join("");

test("words that stay keep their times and their doubt", () => {
  const changed = retext(heard("a", " one two three four"), " one too three four five");
  assert.deepEqual(changed.words.map((word) => word.start), [0, 0.5, 1, 1.5, 2]);
  assert.deepEqual(changed.words.map((word) => word.confidence), [0.4, 1, 0.4, 0.4, 1]);
  assert.equal(changed.edited, true);
  const same = heard("a", " one");
  assert.equal(retext(same, " one"), same);
});

test("any text can become any other", () => {
  for (let i = 0; i < 2000; i++) {
    const text = randomText(12);
    const changed = retext(heard("a", randomText(12), random(50)), text);
    assert.equal(changed.text, text);
    isSound(changed);
  }
});

test("a segment can be cut anywhere, and joined again", () => {
  for (let i = 0; i < 2000; i++) {
    const segment = heard("a", randomText(10), random(50));
    const parts = split(segment, random(segment.text.length + 1));
    assert.notEqual(parts[0].uid, parts[1].uid);
    parts.forEach(isSound);
    assert.ok(parts[0].end <= parts[1].start + 0.001);
    const whole = join(...parts);
    isSound(whole);
    assert.equal(whole.text.replace(/\s/g, ""), segment.text.replace(/\s/g, ""));
    assert.equal(whole.end, segment.end);
  }
});

test("cutting in the middle of a text divides its words", () => {
  const [left, right] = split(heard("a", " one two three four"), 8);
  assert.equal(left.text, " one two");
  assert.equal(right.text, " three four");
  assert.deepEqual(right.words.map((word) => word.start), [1, 1.5]);
  assert.equal(left.end, 1);
});

test("a segment takes its words along to another time", () => {
  const moved = retime(heard("a", " one two"), 10, 14);
  assert.deepEqual(moved.words.map(({ start, end }) => [start, end]), [[10, 12], [12, 14]]);
  isSound(retime(heard("a", " one two"), 5, 5));
});

test("find and replace take what was typed to the letter", () => {
  const segments = [heard("a", " a.b axb A.B"), heard("b", " cat catalogue")];
  assert.equal(findAll(segments, "a.b", {}).length, 2);
  assert.equal(findAll(segments, "a.b", { matchCase: true }).length, 1);
  assert.equal(findAll(segments, "cat", { wholeWords: true }).length, 1);
  assert.equal(findAll(segments, " ", {}).length, 0);
  const [, second] = replace(segments, "cat", "$& dog", { wholeWords: true });
  assert.equal(second.text, " $& dog catalogue");
  const [hit] = findAll(segments, "catalogue", {});
  assert.equal(hit.start, 0.5);
  assert.equal(replace(segments, "cat", "x", {}, hit)[1].text, " cat x");
  assert.equal(timeAt(segments[1], 5), 0.5);
});

test("splices make what they were made of, at any number of places", () => {
  for (let i = 0; i < 2000; i++) {
    const before = Array.from({ length: random(9) }, (_, j) => heard(`s${j}`, " x", j));
    const after = before.flatMap((one, j) => {
      const what = random(7);
      if (what === 0) return [];
      if (what === 1) return [{ ...one, text: " y" }];
      if (what === 2) return [one, heard(`n${j}`, " new", j)];
      if (what === 3) return [heard(`m${j}`, " new", j), one];
      return [one];
    });
    const changes = splices(before, after);
    assert.deepEqual(rebase(before, changes), after);
    const stored = JSON.parse(JSON.stringify(changes));
    assert.deepEqual(rebase(JSON.parse(JSON.stringify(before)), stored), JSON.parse(JSON.stringify(after)));
  }
  assert.deepEqual(splices([], []), []);
});

test("changes to other segments are merged, and to the same one are not", () => {
  const base = ["a", "b", "c"].map((uid, i) => heard(uid, ` ${uid}`, i));
  const mine = splices(base, [base[0], base[1], { ...base[2], text: " mine" }]);
  const theirs = [{ ...base[0], text: " theirs" }, base[1], base[2]];
  assert.deepEqual(rebase(theirs, mine).map((one) => one.text), [" theirs", " b", " mine"]);
  const same = [base[0], base[1], { ...base[2], text: " theirs" }];
  assert.equal(rebase(same, mine), null);
  assert.equal(rebase(base.slice(0, 2), mine), null);
  assert.deepEqual(force(same, mine).map((one) => one.text), [" a", " b", " mine"]);
});

test("a longest common subsequence", () => {
  assert.deepEqual(matches([..."abcd"], [..."axcd"]), [[0, 0], [2, 2], [3, 3]]);
  assert.deepEqual(matches([..."aaa"], [..."a"]), [[0, 0]]);
  assert.deepEqual(matches([], [..."a"]), []);
});

test("doubtful places are runs of words, until they are checked", () => {
  const segment = heard("a", " one two three four");
  segment.words[2].confidence = 0.9;
  const finding = { kind: "uncovered", start: 9, end: 10, state: "open" };
  assert.deepEqual(doubts([segment], [finding]).map(({ start, end }) => [start, end]), [[0, 1], [1.5, 2], [9, 10]]);
  assert.deepEqual(doubts([{ ...segment, checked: true }], [{ ...finding, state: "accepted" }]), []);
});

test("times are read as they are written", () => {
  for (const [value, text] of [[0, "0:00"], [59.99, "0:59"], [3600, "1:00:00"], [7384.2, "2:03:04"]]) assert.equal(clock(value), text);
  for (const value of [0, 0.1, 59.9, 60, 3599.9, 10000.5]) assert.ok(Math.abs(seconds(clock(value, true)) - value) < 1e-9);
  for (const wrong of ["", "a", "1:2:3:4", "-1", "1:", "1e3"]) assert.equal(seconds(wrong), null);
});

test("an edge that is moved moves no word, and leaves none outside", () => {
  const segment = heard("a", " one two three four", 10);
  const shorter = trim(segment, 10.2, 11.8);
  assert.deepEqual(shorter.words.map((word) => [word.start, word.end]), [[10.2, 10.5], [10.5, 11], [11, 11.5], [11.5, 11.8]]);
  assert.equal(shorter.edited, true);
  isSound(shorter);
  assert.deepEqual(trim(segment, 9, 13).words, segment.words);
});

test("what was heard of a segment comes back, whatever was done to it", () => {
  const original = [heard("a", " one two three four"), heard("b", " five six", 2), heard("c", " seven", 3)];
  const mended = retext(original[0], " something else");
  assert.deepEqual(restore([mended, original[1], original[2]], original, "a"), original);
  const [left, right] = split(original[0], 8);
  assert.deepEqual(restore([left, right, original[1], original[2]], original, right.uid), original);
  const joined = join(retext(original[0], " 1"), original[1]);
  assert.deepEqual(restore([joined, original[2]], original, joined.uid), original);
  assert.deepEqual(restore([original[0], retime(original[1], 2.4, 2.9), original[2]], original, "b"), original);
  const added = { ...heard("new", " more", 7) };
  const all = [...original, added];
  assert.equal(restore(all, original, "new"), all);
  const others = restore([retext(original[0], " x"), retext(original[1], " y"), original[2]], original, "a");
  assert.deepEqual(others.map((one) => one.text), [original[0].text, " y", original[2].text]);
  const splitFar = [...split(original[0], 8), ...original.slice(1)];
  const back = restore(splitFar, original, "b");
  assert.equal(back.length, 4); // the neighbours of the segment stay as they are
  assert.equal(new Set(back.map((one) => one.uid)).size, 4);
});
