import { checkedCall, nounOf } from './check-call.ts';
import { FIELD_NAMES, findField, namesNear, type Field, type Need } from './fields.ts';
import { didYouMean, show } from './problems.ts';
import {
  DEEPEST,
  FUNCTION_NAMES,
  LONGEST_TEMPLATE,
  TemplateError,
  type Choice,
  type Expression,
  type FunctionName,
  type Node,
  type Template,
} from './syntax.ts';
import { tokenize, type Token, type TokenKind } from './tokens.ts';

/** Not names of functions. */
const KEYWORDS = new Set(['if', 'else', 'end']);

const CALLABLE = [...FUNCTION_NAMES, 'index'];
const OPERAND = 'a field such as .PodMeta.Name, a text in "…", a number, true, false or (…)';

/**
 * Reads a subset of Go's text/template: fields, `index` on labels and annotations, texts, pipelines, the functions of
 * `FUNCTION_NAMES`, `if`, `else if`, `else`, comments and trim markers. At most 4096 characters. Everything is checked here, so
 * that a template which has passed fails only on what a pod has or lacks.
 *
 * @throws TemplateError (code `invalid_config`) with line and column, what was found and what is allowed.
 */
export function parseTemplate(text: string): Template {
  if (text.length > LONGEST_TEMPLATE) {
    throw new TemplateError('1:1', `${text.length} characters`, `a template of at most ${LONGEST_TEMPLATE} characters`);
  }
  return new Parser(text, tokenize(text)).template();
}

/** What must be watched for this template. */
export function needs(template: Template): ReadonlySet<Need> {
  return new Set(template.fields.flatMap(({ need }) => (need === undefined ? [] : [need])));
}

/** How a list of nodes ended. */
type Stop = { readonly word: 'end' | 'else' | 'else if' | 'nothing'; readonly token: Token };

class Parser {
  readonly #source: string;
  readonly #tokens: readonly Token[];
  readonly #fields = new Set<Field>();
  #next = 0;
  #depth = 0;

  constructor(source: string, tokens: readonly Token[]) {
    this.#source = source;
    this.#tokens = tokens;
  }

  template(): Template {
    const { nodes, stop } = this.#nodes();
    if (stop.word !== 'nothing') throw refuse(stop.token, `"${stop.word}" only within {{ if … }}`);
    return { source: this.#source, nodes, fields: [...this.#fields] };
  }

  /** Up to the end of the template, `end`, `else` or `else if`, whose last token is taken. */
  #nodes(): { readonly nodes: readonly Node[]; readonly stop: Stop } {
    const nodes: Node[] = [];
    for (;;) {
      const token = this.#take();
      if (token.kind === 'end') return { nodes, stop: { word: 'nothing', token } };
      if (token.kind === 'text') {
        nodes.push({ kind: 'text', text: token.text });
        continue;
      }
      const stop = this.#stop();
      if (stop !== undefined) return { nodes, stop };
      nodes.push(this.#action());
    }
  }

  #stop(): Stop | undefined {
    const token = this.#peek();
    if (this.#takeWord('end')) return this.#close({ word: 'end', token });
    if (!this.#takeWord('else')) return undefined;
    return this.#takeWord('if') ? { word: 'else if', token } : this.#close({ word: 'else', token });
  }

  #close(stop: Stop): Stop {
    this.#expect('close', `}} after "${stop.word}"`);
    return stop;
  }

  #action(): Node {
    const token = this.#peek();
    if (this.#takeWord('if')) return this.#choice(token);
    if (token.kind === 'close') throw refuse(token, OPERAND, 'an action cannot be empty');
    const value = this.#pipeline();
    if (value.type === 'mixed')
      throw new TemplateError(value.at, 'either of values of several kinds', 'a text, a number, true or false');
    this.#expect('close', '}} or "|"');
    return { kind: 'output', value };
  }

  #choice(opened: Token): Choice {
    this.#enter(opened);
    const branches: Choice['branches'][number][] = [];
    for (;;) {
      const when = this.#pipeline();
      this.#expect('close', '}} or "|"');
      const { nodes, stop } = this.#nodes();
      branches.push({ when, then: nodes });
      if (stop.word === 'else if') continue;
      const otherwise = stop.word === 'else' ? this.#otherwise(opened) : this.#ended(stop, opened, []);
      this.#depth--;
      return { kind: 'if', branches, otherwise };
    }
  }

  #otherwise(opened: Token): readonly Node[] {
    const { nodes, stop } = this.#nodes();
    return this.#ended(stop, opened, nodes);
  }

  #ended(stop: Stop, opened: Token, nodes: readonly Node[]): readonly Node[] {
    if (stop.word === 'nothing') throw new TemplateError(opened.at, '"if" without "end"', '{{ if … }} closed by {{ end }}');
    if (stop.word !== 'end') throw refuse(stop.token, '{{ end }} after {{ else }}');
    return nodes;
  }

  /** `A | f | g "x"` is `g "x" (f A)`. */
  #pipeline(): Expression {
    let value = this.#command(undefined);
    while (this.#peek().kind === 'pipe') {
      this.#take();
      value = this.#command(value);
    }
    return value;
  }

  #command(piped: Expression | undefined): Expression {
    const token = this.#peek();
    const name = token.kind === 'word' && token.text !== 'true' && token.text !== 'false' ? this.#functionName(token) : undefined;
    if (name === undefined) {
      if (piped !== undefined) throw refuse(token, `a function after "|": ${CALLABLE.join(', ')}`);
      return this.#operand();
    }
    this.#take();
    const args: Expression[] = [];
    if (name === 'index') return this.#index(token, piped);
    while (!['close', 'pipe', 'right', 'end'].includes(this.#peek().kind)) args.push(this.#operand());
    if (piped !== undefined) args.push(piped);
    return checkedCall(token.at, name, args);
  }

  #functionName(token: Token): FunctionName | 'index' {
    const name = token.text;
    if (name === 'index') return name;
    const known = FUNCTION_NAMES.find((one) => one === name);
    if (known !== undefined) return known;
    const allowed = `if, else, end or a function: ${CALLABLE.join(', ')}`;
    throw refuse(token, allowed, KEYWORDS.has(name) ? `"${name}" stands first in its action` : didYouMean(name, CALLABLE));
  }

  #operand(): Expression {
    const token = this.#take();
    const { at } = token;
    if (token.kind === 'string') return { kind: 'literal', type: 'text', value: token.text, at, fromPod: false };
    if (token.kind === 'number') return { kind: 'literal', type: 'number', value: Number(token.text), at, fromPod: false };
    if (token.kind === 'field') return this.#field(token);
    if (token.kind === 'left') return this.#parenthesis(token);
    if (token.kind === 'word' && (token.text === 'true' || token.text === 'false')) {
      return { kind: 'literal', type: 'flag', value: token.text === 'true', at, fromPod: false };
    }
    throw refuse(token, OPERAND, token.kind === 'word' ? 'a function among the arguments of another stands in (…)' : undefined);
  }

  #parenthesis(opened: Token): Expression {
    this.#enter(opened);
    const value = this.#pipeline();
    this.#expect('right', '")" or "|"');
    this.#depth--;
    return value;
  }

  #field(token: Token): Expression {
    const { field, key } = this.#known(token);
    if (field.type !== 'map') return { kind: 'field', field, type: field.type, at: token.at, fromPod: false };
    if (key === undefined) throw refuse(token, `one of its entries: index ${field.name} "key"`);
    const literal: Expression = { kind: 'literal', type: 'text', value: key, at: token.at, fromPod: false };
    return { kind: 'entry', map: field, key: literal, type: 'text', at: token.at, fromPod: field.fromPod };
  }

  #known(token: Token): { readonly field: Field; readonly key: string | undefined } {
    const found = findField(token.text);
    if (found === undefined)
      throw refuse(token, `a field: ${namesNear(token.text).join(', ')}`, didYouMean(token.text, FIELD_NAMES));
    this.#fields.add(found.field);
    return found;
  }

  #index(called: Token, piped: Expression | undefined): Expression {
    const usage = 'index .PodMeta.Labels "key", or another field of labels or annotations';
    const token = this.#take();
    if (token.kind !== 'field') throw refuse(token, usage);
    const { field, key: within } = this.#known(token);
    if (field.type !== 'map' || within !== undefined) throw refuse(token, usage);
    const key = piped ?? this.#operand();
    if (key.type !== 'text') throw new TemplateError(key.at, nounOf(key.type), `a text: ${usage}`);
    if (!['close', 'pipe', 'right'].includes(this.#peek().kind)) throw refuse(this.#peek(), `${usage}, with one key`);
    return { kind: 'entry', map: field, key, type: 'text', at: called.at, fromPod: field.fromPod };
  }

  #enter(token: Token): void {
    this.#depth++;
    if (this.#depth > DEEPEST) throw refuse(token, `at most ${DEEPEST} ifs and parentheses within each other`);
  }

  #peek(): Token {
    return this.#tokens[this.#next] ?? END;
  }

  #take(): Token {
    const token = this.#peek();
    this.#next++;
    return token;
  }

  #takeWord(word: string): boolean {
    const { kind, text } = this.#peek();
    if (kind !== 'word' || text !== word) return false;
    this.#next++;
    return true;
  }

  #expect(kind: TokenKind, allowed: string): void {
    const token = this.#take();
    if (token.kind !== kind) throw refuse(token, allowed);
  }
}

const END: Token = { kind: 'end', text: '', at: '1:1' };

function refuse(token: Token, allowed: string, hint?: string): TemplateError {
  const found = token.kind === 'end' ? 'the end' : token.kind === 'close' ? '"}}"' : show(token.text);
  return new TemplateError(token.at, found, allowed, hint);
}
