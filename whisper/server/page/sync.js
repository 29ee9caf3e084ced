// The text follows the sound: the word that is heard lights up, and stays in view while nobody scrolls.
import { useEffect, useRef } from "./ui.js";
import { headPlace } from "./waveform.js";
import { clock } from "./time.js";

const LEFT_ALONE = 4000; // milliseconds after somebody has scrolled

/** The index of the last item that starts at a time or before; -1 where there is none. */
export function lastBefore(items, time) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle].start <= time + 0.02) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Follow a player; gives {scrollTo(uid)}. Draws with the screen while it plays, and a few times a second else. */
export function useSync({ player, editor, elements, head, clockRef, view, isEditing }) {
  const latest = useRef({});
  latest.current = { isEditing };
  const scrolled = useRef(0);
  const api = useRef({ scrollTo: (uid) => bringIntoView(elements.current.get(uid), true) });
  useEffect(() => {
    let frame = 0;
    let lit = null;
    let shown = "";
    let row = null;
    const light = (time) => {
      const { segments } = editor.state.value;
      const segment = segments[lastBefore(segments, time)];
      const element = segment && elements.current.get(segment.uid);
      const isInside = segment && time <= segment.end + 0.3;
      const word = isInside && element ? element.querySelector(`[data-word="${lastBefore(segment.words, time)}"]`) : null;
      if (word !== lit) {
        lit?.classList.remove("now");
        word?.classList.add("now");
        lit = word;
      }
      if (element !== row) {
        row = element;
        const mayScroll = Date.now() - scrolled.current > LEFT_ALONE && !latest.current.isEditing;
        if (element && !player.audio.paused && mayScroll) bringIntoView(element, false);
      }
    };
    const draw = () => {
      const { time } = player;
      player.tick();
      view.follow(time);
      const strip = head.current?.parentElement; // gone while the view is being left
      if (strip && view.span) head.current.style.transform = `translateX(${headPlace(view, time, strip.clientWidth)}px)`;
      const now = clock(time);
      if (now !== shown && clockRef.current) {
        shown = now;
        clockRef.current.textContent = now;
        strip?.setAttribute("aria-valuenow", Math.floor(time));
        strip?.setAttribute("aria-valuetext", now);
      }
      light(time);
      if (!player.audio.paused) frame = requestAnimationFrame(draw);
    };
    const restart = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(draw);
    };
    const hand = () => { scrolled.current = Date.now(); };
    for (const kind of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) player.audio.addEventListener(kind, restart);
    for (const kind of ["wheel", "touchmove"]) addEventListener(kind, hand, { passive: true });
    return () => {
      cancelAnimationFrame(frame);
      for (const kind of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) player.audio.removeEventListener(kind, restart);
      for (const kind of ["wheel", "touchmove"]) removeEventListener(kind, hand);
    };
  }, [player, editor]);
  return api.current;
}

function bringIntoView(element, always) {
  if (!element) return;
  const { top, bottom } = element.getBoundingClientRect();
  const under = document.querySelector(".deck")?.getBoundingClientRect().bottom || 0;
  if (!always && top > under && bottom < innerHeight - 80) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches || Math.abs(top) > 3 * innerHeight;
  element.scrollIntoView({ block: "center", behavior: isCalm ? "auto" : "smooth" });
}
