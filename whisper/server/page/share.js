// The script of a shared transcript: words that light up with the sound, and are heard when they are clicked.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("transcript").textContent);
  const audio = document.querySelector("audio");
  const main = document.querySelector("main");
  const spans = [];
  const time = (s) => {
    const n = Math.floor(s);
    const rest = `${String(Math.floor(n / 60) % 60).padStart(2, "0")}:${String(n % 60).padStart(2, "0")}`;
    return n >= 3600 ? `${Math.floor(n / 3600)}:${rest}` : rest;
  };
  let before;
  for (const segment of data.segments) {
    const line = document.createElement("p");
    line.dir = "auto";
    const at = document.createElement("button");
    at.textContent = time(segment.start);
    at.dataset.start = segment.start;
    line.append(at);
    if (segment.speaker !== undefined && segment.speaker !== before) {
      const name = document.createElement("b");
      name.textContent = data.speakers[segment.speaker] || segment.speaker;
      line.append(name, " ");
    }
    before = segment.speaker;
    const words = segment.words.length ? segment.words : [[segment.text, segment.start, segment.end]];
    for (const [word, start, end] of words) {
      const span = document.createElement("span");
      span.textContent = word;
      span.dataset.start = start;
      spans.push({ span, start, end });
      line.append(span);
    }
    main.append(line);
  }
  main.addEventListener("click", (event) => {
    const start = event.target.dataset.start;
    if (start !== undefined && !String(getSelection())) {
      audio.currentTime = Number(start);
      audio.play();
    }
  });
  let lit = null;
  const show = () => {
    let low = 0, high = spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (spans[middle].start <= audio.currentTime + 0.02) low = middle + 1; else high = middle;
    }
    const next = low ? spans[low - 1].span : null;
    if (next !== lit) {
      if (lit) lit.classList.remove("now");
      if (next) next.classList.add("now");
      lit = next;
    }
    if (!audio.paused) requestAnimationFrame(show);
  };
  audio.addEventListener("play", show);
  audio.addEventListener("seeked", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && !["BUTTON", "AUDIO"].includes(event.target.tagName)) {
      event.preventDefault();
      if (audio.paused) audio.play(); else audio.pause();
    }
  });
})();
