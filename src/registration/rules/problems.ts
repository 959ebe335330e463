/** One thing that is wrong with a rule. The same shape as a problem of the configuration. */
export interface Problem {
  /** Where: `spec.podSelector.matchExpressions[0].operator`. */
  readonly path: string;
  /** What is there, shortened and quoted as JSON, or `nothing`. */
  readonly found: string;
  /** What may be there. */
  readonly allowed: string;
  /** What was probably meant. */
  readonly hint?: string;
}

/** Longer values are cut, so that a problem stays on one line of a terminal. */
const LONGEST_SHOWN = 60;

/** Control characters that JSON leaves as they are, and those that turn the direction of text: a terminal would obey them. */
const UNSAFE = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** Longer names are no slips of the finger, and the comparison costs the product of both lengths. */
const LONGEST_COMPARED = 64;

/** A value as a problem shows it: JSON, shortened, harmless to a terminal. */
export function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') {
    return value.length > LONGEST_SHOWN ? `${safeJson(value.slice(0, LONGEST_SHOWN))}…` : safeJson(value);
  }
  const json = safeJson(value);
  return json.length > LONGEST_SHOWN ? `${json.slice(0, LONGEST_SHOWN)}…` : json;
}

/** A sentence that holds texts of others, harmless to a terminal. */
export function harmless(text: string): string {
  return text.replaceAll(UNSAFE, escaped);
}

/** `spec.ttl: found "0", allowed: a duration` for each, in one line. */
export function problemText(problems: readonly Problem[]): string {
  return problems.map(oneLine).join('; ');
}

function oneLine({ path, found, allowed, hint }: Problem): string {
  return `${path}: found ${found}, allowed: ${allowed}${hint === undefined ? '' : ` (${hint})`}`;
}

/** A problem with or without a hint. */
export function problem(path: string, found: string, allowed: string, hint?: string): Problem {
  return hint === undefined ? { path, found, allowed } : { path, found, allowed, hint };
}

/** `did you mean .PodMeta.Namespace?`, or undefined when nothing known is near. */
export function didYouMean(text: string, known: readonly string[]): string | undefined {
  const name = nearest(text, known);
  return name === undefined ? undefined : `did you mean ${name}?`;
}

/** The known name with the fewest slips, at most one in three letters. Case does not count. */
function nearest(text: string, known: readonly string[]): string | undefined {
  if (text.length > LONGEST_COMPARED) return undefined;
  let best: string | undefined;
  let least = Math.max(1, Math.floor(text.length / 3)) + 1;
  for (const name of known) {
    const slips = distance(text.toLowerCase(), name.toLowerCase());
    if (slips < least) [best, least] = [name, slips];
  }
  return best;
}

/** Insertions, deletions and substitutions between two texts (Levenshtein). */
function distance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const line = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = (above[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1);
      line.push(Math.min((above[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1, substituted));
    }
    above = line;
  }
  return above[b.length] ?? 0;
}

function safeJson(value: unknown): string {
  const json = JSON.stringify(value) ?? String(value);
  return json.replaceAll(UNSAFE, escaped);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
