// The keys of the reading view.
import { restoreSegment } from "./original.js";
import { isTyping, useEffect, useRef } from "./ui.js";

const STEP = 3; // seconds
const LONG_STEP = 15;

export function useKeys(view) {
  const latest = useRef(view);
  latest.current = view;
  useEffect(() => {
    const press = (event) => onKey(event, latest.current);
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

function onKey(event, view) {
  const { player, editor } = view;
  const hasControl = event.ctrlKey || event.metaKey;
  if (hasControl && event.key.toLowerCase() === "f") return run(event, view.openFind);
  if (hasControl && event.code === "Space") return run(event, () => player.toggle());
  if (isTyping(event) || event.altKey) return undefined;
  if (hasControl) {
    if (event.key.toLowerCase() === "z") return run(event, () => (event.shiftKey ? editor.redo() : editor.undo()));
    if (event.key.toLowerCase() === "y") return run(event, () => editor.redo());
    return undefined;
  }
  const isButton = event.target.closest("button, a, summary, input") !== null;
  if (isButton && (event.key === " " || event.key === "Enter")) return undefined;
  const { segments } = editor.state.value;
  const index = segments.findIndex((one) => one.uid === view.chosen);
  const segment = segments[index];
  const move = (step) => {
    const next = segments[index < 0 ? 0 : Math.max(0, Math.min(index + step, segments.length - 1))];
    if (!next) return;
    view.setChosen(next.uid);
    player.seek(next.start);
    view.follows.scrollTo(next.uid);
  };
  const actions = {
    " ": () => player.toggle(),
    ArrowLeft: () => player.seek(player.time - (event.shiftKey ? LONG_STEP : STEP)),
    ArrowRight: () => player.seek(player.time + (event.shiftKey ? LONG_STEP : STEP)),
    ArrowUp: () => move(-1),
    ArrowDown: () => move(1),
    "<": () => player.faster(-1),
    ">": () => player.faster(1),
    "+": () => view.zoom(0.5),
    "-": () => view.zoom(2),
    d: () => view.jump(1),
    D: () => view.jump(-1),
    a: () => view.accept(),
    "/": view.openFind,
    "?": () => view.setDialog({ name: "help" }),
    Enter: () => segment && view.edit(segment.uid, null),
    s: () => segment && view.setDialog({ name: "speakers", segment }),
    t: () => segment && view.setDialog({ name: "times", segment }),
    r: () => segment && restoreSegment(editor, segment.uid),
  };
  const action = actions[event.key];
  return action ? run(event, action) : undefined;
}

function run(event, action) {
  event.preventDefault();
  action();
}
