// Times, sizes and dates in words.

/** Seconds as 1:02:03, or 2:03; with `tenths`, 2:03.4. */
export function clock(seconds, tenths = false) {
  const all = tenths ? Math.round(seconds * 10) / 10 : Math.floor(seconds + 1e-6);
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  const rest = tenths ? (all % 60).toFixed(1).padStart(4, "0") : String(Math.floor(all % 60)).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Seconds of a text such as 1:02:03.4; null where it is no time. */
export function seconds(text) {
  if (!/^\s*(\d+:){0,2}\d+([.,]\d+)?\s*$/.test(text)) return null;
  return text.trim().replace(",", ".").split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** Seconds in words, for somebody who waits: "about 3 min". */
export function roughly(span) {
  if (span < 8) return "a few seconds";
  if (span < 90) return `about ${Math.round(span / 5) * 5} s`;
  if (span < 5400) return `about ${Math.round(span / 60)} min`;
  return `about ${(span / 3600).toFixed(1)} h`;
}

/** A length in words: "42 s", "3 min", "1 h 20 min". */
export function length(span) {
  if (span < 60) return `${Math.round(span)} s`;
  const minutes = Math.round(span / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** A moment, as people say it: a time for today, a date for all others. */
export function moment(unix) {
  const date = new Date(unix * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}
