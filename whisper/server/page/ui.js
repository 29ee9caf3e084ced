// Components and their state: Preact with templates, and small stores that components follow.
import { h, render, Component } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { Component, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

/** A value that components can follow. */
export class Store {
  #listeners = new Set();

  constructor(value) {
    this.value = value;
  }

  /** Replace the value, or some of its fields. */
  set(value) {
    this.value = typeof value === "object" && !Array.isArray(value) && value !== null ? { ...this.value, ...value } : value;
    this.#listeners.forEach((listener) => listener(this.value));
  }

  follow(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** The value of a store; the component is drawn again when it changes. */
export function useStore(store) {
  const [, draw] = useState(0);
  useEffect(() => store.follow(() => draw((n) => n + 1)), [store]);
  return store.value;
}

/** A short message that disappears by itself; read aloud by screen readers. */
export const notice = new Store("");
let timer = 0;
export function tell(message) {
  notice.set(message);
  clearTimeout(timer);
  timer = setTimeout(() => notice.set(""), 6000);
}

/** A line drawing, one path in a box of 24. */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

const ICONS = {
  back: "M15 5l-7 7 7 7",
  play: "M8 5.500v13l10.500-6.500z",
  pause: "M8 5v14M16 5v14",
  find: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500L20 20",
  more: "M4.500 12h1M11.500 12h1M18.500 12h1",
  close: "M6 6l12 12M18 6L6 18",
  undo: "M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10h-4",
  redo: "M16 5l4 4-4 4M20 9H10a5 5 0 0 0 0 10h4",
  save: "M12 4v11M7 11l5 5 5-5M5 20h14",
  doubt: "M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 18h.01",
  check: "M5 12.500l4.500 4.500L19 7.500",
  add: "M12 5v14M5 12h14",
  in: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500L20 20M10.500 7.500v6M7.500 10.500h6",
  out: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500L20 20M7.500 10.500h6",
  restore: "M4 5v5h5M4.500 10a8 8 0 1 1-.3 4.500M12 8v4.500l3 2",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  people: "M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM2.500 20c0-3.600 2.900-6 6.500-6s6.500 2.400 6.500 6M16 4.500a3.500 3.500 0 0 1 0 6.500M17.500 14.200c2.400.7 4 2.800 4 5.800",
};

/** A dialog over the page; the browser itself keeps the focus inside. */
export function Dialog({ title, onClose, children, wide }) {
  const box = useRef(null);
  useLayoutEffect(() => box.current.showModal(), []);
  const outside = (event) => event.target === box.current && onClose();
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-label=${title} onClose=${onClose} onClick=${outside}>
    <div class="dialog">
      <header><h2>${title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button></header>
      ${children}
    </div>
  </dialog>`;
}

/** Whether a key press is meant for a field or a button, and not for the page. */
export function isTyping(event) {
  const target = event.target;
  return target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]") || target.closest("dialog") !== null;
}
