import { SignetError } from '../../errors.ts';
import type { TemplateData } from './facts.ts';
import { comparable, isTrue, Missing, parseFormat, RenderFailure, TEXT_FUNCTIONS, textOf, type Value } from './functions.ts';
import { show } from './problems.ts';
import {
  LONGEST_OUTPUT,
  type Call,
  type Choice,
  type Expression,
  type MapEntry,
  type Node,
  type Position,
  type Template,
} from './syntax.ts';

export interface RenderOptions {
  /**
   * True: what is made of a pod's label or annotation must not hold "/", so that whoever makes the pod fills the segments that
   * the template has and adds none. Default false.
   */
  readonly oneSegment?: boolean;
}

/**
 * What the template says of this pod, at most 4096 characters. A label or annotation that is not there is refused where it would
 * be written out, not taken for the empty text: an identity must not lose a part of its name.
 *
 * @throws SignetError `invalid_config` with line and column and what the pod lacks.
 */
export function render(template: Template, data: TemplateData, options: RenderOptions = {}): string {
  return new Renderer(data, options.oneSegment === true).run(template.nodes);
}

class Renderer {
  readonly #data: TemplateData;
  readonly #oneSegment: boolean;
  /** What is being evaluated, for messages. */
  #at: Position = '1:1';
  #output = '';

  constructor(data: TemplateData, oneSegment: boolean) {
    this.#data = data;
    this.#oneSegment = oneSegment;
  }

  run(nodes: readonly Node[]): string {
    try {
      this.#nodes(nodes);
      return this.#output;
    } catch (error) {
      if (!(error instanceof RenderFailure)) throw error;
      throw new SignetError('invalid_config', `template, ${this.#at}: ${error.message}`, { cause: error });
    }
  }

  #nodes(nodes: readonly Node[]): void {
    for (const node of nodes) {
      if (node.kind === 'if') this.#nodes(this.#branch(node));
      else this.#write(node.kind === 'text' ? node.text : this.#text(node.value));
    }
  }

  #branch({ branches, otherwise }: Choice): readonly Node[] {
    return branches.find(({ when }) => isTrue(this.#value(when)))?.then ?? otherwise;
  }

  #write(text: string): void {
    if (this.#output.length + text.length > LONGEST_OUTPUT)
      throw new RenderFailure(`the text is longer than ${LONGEST_OUTPUT} characters`);
    this.#output += text;
  }

  /** As it is written out. */
  #text(expression: Expression): string {
    const text = textOf(this.#value(expression));
    this.#at = expression.at;
    if (this.#oneSegment && expression.fromPod && text.includes('/')) {
      throw new RenderFailure(`${show(text)}, made of a label or an annotation, has "/": it would add segments to the path`);
    }
    return text;
  }

  #value(expression: Expression): Value {
    this.#at = expression.at;
    if (expression.kind === 'literal') return expression.value;
    if (expression.kind === 'call') return this.#call(expression);
    if (expression.kind === 'entry') return this.#entry(expression);
    const value = expression.field.read(this.#data);
    if (value === undefined) throw new RenderFailure(`${expression.field.name} is not known`);
    return value;
  }

  #entry({ map, key, at }: MapEntry): Value {
    const name = textOf(this.#value(key));
    this.#at = at;
    const texts = map.read(this.#data);
    if (texts === undefined) throw new RenderFailure(`${map.name} is not known`);
    const text = Object.hasOwn(texts, name) ? texts[name] : undefined;
    return text ?? new Missing(`${map.without} ${show(name)}`);
  }

  #call(call: Call): Value {
    const { name, args, at } = call;
    if (name === 'and' || name === 'or') return this.#decide(args, name === 'or');
    if (name === 'printf') return this.#printf(args, at);
    const values = args.map((arg) => this.#value(arg));
    this.#at = at;
    const [first = '', second = ''] = values;
    if (name === 'not') return !isTrue(first);
    if (name === 'ne') return comparable(first) !== comparable(second);
    if (name === 'eq') return values.slice(1).some((value) => comparable(value) === comparable(first));
    if (name === 'hasPrefix') return String(comparable(second)).startsWith(String(comparable(first)));
    if (name === 'default') return isTrue(second) ? second : first;
    return TEXT_FUNCTIONS[name]?.(...values.map(textOf)) ?? '';
  }

  /** The first argument that decides, as in Go; those after it are not evaluated. */
  #decide(args: readonly Expression[], when: boolean): Value {
    let value: Value = '';
    for (const arg of args) {
      value = this.#value(arg);
      if (isTrue(value) === when) return value;
    }
    return value;
  }

  #printf([format, ...args]: readonly Expression[], at: Position): string {
    const parts = format?.kind === 'literal' ? (parseFormat(String(format.value)) ?? []) : [];
    const texts = args.map((arg) => this.#text(arg)).values();
    const text = parts.map((part) => (typeof part === 'string' ? (texts.next().value ?? '') : part.text)).join('');
    this.#at = at;
    return textOf(text);
  }
}
