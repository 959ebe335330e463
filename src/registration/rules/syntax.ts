import { SignetError } from '../../errors.ts';
import type { Field, MapField } from './fields.ts';

/** What an expression gives. `mixed` is that of `and` and `or` over different ones: a condition and nothing else. */
export type ValueType = 'text' | 'flag' | 'number' | 'mixed';

/** In `line:column`, both from 1. */
export type Position = string;

/** What is known of every expression once it is parsed. */
interface ExpressionBase {
  readonly type: ValueType;
  readonly at: Position;
  /** Whoever makes the pod has written (part of) it: a label or an annotation. */
  readonly fromPod: boolean;
}

export interface Literal extends ExpressionBase {
  readonly kind: 'literal';
  readonly value: string | number | boolean;
}

export interface FieldValue extends ExpressionBase {
  readonly kind: 'field';
  readonly field: Exclude<Field, MapField>;
}

/** `index .PodMeta.Labels "app"`, or `.PodMeta.Labels.app`. */
export interface MapEntry extends ExpressionBase {
  readonly kind: 'entry';
  readonly map: MapField;
  readonly key: Expression;
}

export interface Call extends ExpressionBase {
  readonly kind: 'call';
  readonly name: FunctionName;
  readonly args: readonly Expression[];
}

export type Expression = Literal | FieldValue | MapEntry | Call;

export const FUNCTION_NAMES = [
  'and',
  'default',
  'eq',
  'hasPrefix',
  'lower',
  'ne',
  'not',
  'or',
  'printf',
  'replace',
  'trim',
  'trimPrefix',
  'trimSuffix',
  'upper',
] as const;
export type FunctionName = (typeof FUNCTION_NAMES)[number];

/** The first branch whose condition holds is taken, else `otherwise`. */
export interface Choice {
  readonly kind: 'if';
  readonly branches: readonly { readonly when: Expression; readonly then: readonly Node[] }[];
  readonly otherwise: readonly Node[];
}

export type Node =
  { readonly kind: 'text'; readonly text: string } | { readonly kind: 'output'; readonly value: Expression } | Choice;

/** A template that was checked wholly: its fields exist, its functions get what they take. */
export interface Template {
  /** As it was written. */
  readonly source: string;
  readonly nodes: readonly Node[];
  /** Each field that it names, once. */
  readonly fields: readonly Field[];
}

/** The longest template, in UTF-16 units. */
export const LONGEST_TEMPLATE = 4_096;

/** The longest output, and the longest value on the way to it: twice what the longest SPIFFE ID has (SPIFFE-ID §2.3). */
export const LONGEST_OUTPUT = 4_096;

/** `if` in `if`, and parentheses in parentheses. */
export const DEEPEST = 16;

/** A template that is refused. Code `invalid_config`. */
export class TemplateError extends SignetError {
  readonly position: Position;
  /** What stands there. */
  readonly found: string;
  readonly allowed: string;
  readonly hint: string | undefined;

  constructor(position: Position, found: string, allowed: string, hint?: string) {
    super(
      'invalid_config',
      `template, ${position}: found ${found}, allowed: ${allowed}${hint === undefined ? '' : ` (${hint})`}`,
    );
    this.name = 'TemplateError';
    this.position = position;
    this.found = found;
    this.allowed = allowed;
    this.hint = hint;
  }
}
