import { show } from './problems.ts';
import { TemplateError, type Position } from './syntax.ts';

/** `text` stands between actions, `open` is `{{`, `close` is `}}`; all others are inside of an action. */
export type TokenKind = 'text' | 'open' | 'close' | 'field' | 'word' | 'string' | 'number' | 'pipe' | 'left' | 'right' | 'end';

export interface Token {
  readonly kind: TokenKind;
  /** As it is written; of a string what it means; of text what is left after trimming. */
  readonly text: string;
  readonly at: Position;
}

/** Go's templates: what a trim marker takes away, and what stands between operands. */
const SPACE = ' \t\r\n';
const SPACES = /[ \t\r\n]+/y;

const PATTERNS: readonly (readonly [TokenKind, RegExp])[] = [
  ['field', /(?:\.[A-Za-z_][A-Za-z0-9_]*)+/y],
  ['word', /[A-Za-z_][A-Za-z0-9_]*/y],
  ['number', /-?[0-9]{1,15}/y],
  ['pipe', /\|/y],
  ['left', /\(/y],
  ['right', /\)/y],
];

/** Of Go's templates, but none of ours: they repeat, name or call templates. */
const REFUSED_WORDS = new Set(['range', 'with', 'define', 'template', 'block', 'break', 'continue']);

/** These must be set apart from what comes after them. */
const OPERANDS: ReadonlySet<TokenKind> = new Set(['field', 'word', 'string', 'number', 'right']);
const AFTER_OPERAND = /[ \t\r\n)|]|\}\}|$/y;

/** What was probably meant by a character that nothing begins with. */
const HINTS: ReadonlyMap<string, string> = new Map([
  ['$', 'there are no variables'],
  [':', 'there are no variables'],
  ['.', '"." alone is no field'],
  ["'", 'write texts in "…"'],
]);

const ESCAPES: Readonly<Record<string, string>> = { '"': '"', '\\': '\\', n: '\n', r: '\r', t: '\t' };
const ESCAPE = /\\(?:u([0-9a-fA-F]{4})|(["\\nrt]))/y;

/** Cuts a template into tokens; trim markers are applied and comments left out. Throws TemplateError. */
export function tokenize(source: string): readonly Token[] {
  return new Tokenizer(source).run();
}

class Tokenizer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #offset = 0;
  /** The action before had `-}}`. */
  #trimNext = false;

  constructor(source: string) {
    this.#source = source;
  }

  run(): readonly Token[] {
    while (this.#offset < this.#source.length) {
      this.#text();
      if (this.#offset < this.#source.length && !this.#comment()) this.#action();
    }
    this.#push('end', '', this.#offset);
    return this.#tokens;
  }

  /** Up to the next action. */
  #text(): void {
    const start = this.#offset;
    const open = this.#source.indexOf('{{', start);
    const end = open === -1 ? this.#source.length : open;
    let text = this.#source.slice(start, end);
    if (this.#trimNext) text = text.replace(/^[ \t\r\n]+/, '');
    if (open !== -1 && this.#isTrimMarker(open + 2)) text = trimEnd(text);
    this.#trimNext = false;
    this.#offset = end;
    if (text !== '') this.#push('text', text, start);
  }

  /** `-` with a space after it: `{{-3}}` is a number. */
  #isTrimMarker(offset: number): boolean {
    return this.#source[offset] === '-' && SPACE.includes(this.#source[offset + 1] ?? '.');
  }

  /** `{{/* … *\/}}` with nothing else in the braces. */
  #comment(): boolean {
    const open = this.#offset;
    const start = this.#isTrimMarker(open + 2) ? this.#afterSpaces(open + 3) : open + 2;
    if (!this.#source.startsWith('/*', start)) return false;
    const end = this.#source.indexOf('*/', start + 2);
    if (end === -1) throw this.#refuse(start, 'a comment without end', '{{/* … */}}');
    const close = this.#afterSpaces(end + 2);
    const trims = close > end + 2 && this.#source.startsWith('-}}', close);
    if (!trims && !this.#source.startsWith('}}', end + 2))
      throw this.#refuse(end + 2, this.#shown(end + 2), '}} right after a comment');
    this.#trimNext = trims;
    this.#offset = trims ? close + 3 : end + 4;
    return true;
  }

  #action(): void {
    const open = this.#offset;
    this.#push('open', '{{', open);
    this.#offset = open + (this.#isTrimMarker(open + 2) ? 3 : 2);
    while (!this.#closed()) {
      if (this.#offset >= this.#source.length) throw this.#refuse(open, '{{ without }}', 'an action closed by }}');
      this.#token();
    }
  }

  /** Takes the spaces and, where it comes, the end of the action. */
  #closed(): boolean {
    const start = this.#offset;
    this.#offset = this.#afterSpaces(start);
    const trims = this.#offset > start && this.#source.startsWith('-}}', this.#offset);
    if (!trims && !this.#source.startsWith('}}', this.#offset)) return false;
    this.#push('close', '}}', this.#offset);
    this.#trimNext = trims;
    this.#offset += trims ? 3 : 2;
    return true;
  }

  #token(): void {
    const start = this.#offset;
    const quote = this.#source[start];
    if (quote === '"') this.#quoted(start);
    else if (quote === '`') this.#raw(start);
    else this.#pattern(start);
    const last = this.#tokens.at(-1);
    AFTER_OPERAND.lastIndex = this.#offset;
    if (last !== undefined && OPERANDS.has(last.kind) && !AFTER_OPERAND.test(this.#source)) {
      const before = show(this.#source.slice(start, this.#offset));
      throw this.#refuse(this.#offset, this.#shown(this.#offset), `a space, "|", ")" or "}}" after ${before}`);
    }
  }

  #pattern(start: number): void {
    for (const [kind, pattern] of PATTERNS) {
      pattern.lastIndex = start;
      const text = pattern.exec(this.#source)?.[0];
      if (text === undefined) continue;
      if (kind === 'word' && REFUSED_WORDS.has(text)) {
        const hint = 'templates here do not repeat, and do not name or call others';
        throw this.#refuse(start, show(text), 'if, else, end, a field or a function', hint);
      }
      this.#offset = start + text.length;
      return this.#push(kind, text, start);
    }
    throw this.#unknownCharacter(start);
  }

  #unknownCharacter(start: number): TemplateError {
    const allowed = 'a field such as .PodMeta.Name, a function, a text in "…" or `…`, a number, true or false';
    return this.#refuse(start, this.#shown(start), allowed, HINTS.get(this.#source[start] ?? ''));
  }

  #quoted(start: number): void {
    let text = '';
    let offset = start + 1;
    for (;;) {
      const character = this.#source[offset];
      if (character === undefined || character === '\n')
        throw this.#refuse(start, 'a text without its closing "', 'a text in "…"');
      if (character === '"') break;
      const escaped = character === '\\' ? this.#escape(offset) : { text: character, length: 1 };
      text += escaped.text;
      offset += escaped.length;
    }
    this.#offset = offset + 1;
    this.#push('string', text, start);
  }

  #escape(offset: number): { readonly text: string; readonly length: number } {
    ESCAPE.lastIndex = offset;
    const match = ESCAPE.exec(this.#source);
    if (match === null)
      throw this.#refuse(offset, this.#shown(offset, 2), '\\", \\\\, \\n, \\r, \\t or \\u and four hexadecimal digits');
    const [whole, code, letter = ''] = match;
    const text = code === undefined ? (ESCAPES[letter] ?? '') : String.fromCharCode(Number.parseInt(code, 16));
    return { text, length: whole.length };
  }

  #raw(start: number): void {
    const end = this.#source.indexOf('`', start + 1);
    if (end === -1) throw this.#refuse(start, 'a text without its closing `', 'a text in `…`');
    this.#offset = end + 1;
    this.#push('string', this.#source.slice(start + 1, end), start);
  }

  #afterSpaces(offset: number): number {
    SPACES.lastIndex = offset;
    return SPACES.test(this.#source) ? SPACES.lastIndex : offset;
  }

  #push(kind: TokenKind, text: string, offset: number): void {
    this.#tokens.push({ kind, text, at: positionOf(this.#source, offset) });
  }

  #shown(offset: number, length = 1): string {
    return offset >= this.#source.length ? 'the end' : show(this.#source.slice(offset, offset + length));
  }

  #refuse(offset: number, found: string, allowed: string, hint?: string): TemplateError {
    return new TemplateError(positionOf(this.#source, offset), found, allowed, hint);
  }
}

/** Not a pattern that is anchored at the end: on long runs of spaces it would cost the square of their number. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && SPACE.includes(text[end - 1] ?? '.')) end--;
  return text.slice(0, end);
}

function positionOf(source: string, offset: number): Position {
  const lines = source.slice(0, offset).split('\n');
  return `${lines.length}:${(lines.at(-1) ?? '').length + 1}`;
}
