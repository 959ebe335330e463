import { FUNCTIONS, parseFormat } from './functions.ts';
import { show } from './problems.ts';
import { TemplateError, type Call, type Expression, type FunctionName, type Position, type ValueType } from './syntax.ts';

/** A call whose arguments are what the function takes. Throws TemplateError. */
export function checkedCall(at: Position, name: FunctionName, args: readonly Expression[]): Call {
  const { usage, parameters, variadic, type } = FUNCTIONS[name];
  const least = name === 'printf' ? 1 : parameters.length;
  if (args.length < least || (variadic !== true && args.length > parameters.length)) {
    throw new TemplateError(at, `${name} with ${counted(args.length, 'argument')}`, usage);
  }
  for (const [index, arg] of args.entries()) {
    const parameter = parameters[Math.min(index, parameters.length - 1)];
    if (parameter === 'text' && arg.type !== 'text') throw new TemplateError(arg.at, nounOf(arg.type), `a text: ${usage}`);
    if (parameter === 'comparable' && (arg.type === 'mixed' || arg.type !== args[0]?.type)) {
      throw new TemplateError(arg.at, nounOf(arg.type), `values of one kind: ${usage}`);
    }
  }
  if (name === 'printf') checkFormat(args);
  const given = type === 'argument' ? commonType(args) : type;
  // printf is held to one segment for each of its values, and a flag is none of the pod's texts.
  const fromPod = name !== 'printf' && given !== 'flag' && args.some((arg) => arg.fromPod);
  return { kind: 'call', name, args, type: given, at, fromPod };
}

function checkFormat([format, ...args]: readonly Expression[]): void {
  if (format?.kind !== 'literal')
    throw new TemplateError(format?.at ?? '1:1', 'a format that is not written out', FUNCTIONS.printf.usage);
  const parts = parseFormat(String(format.value));
  if (parts === undefined)
    throw new TemplateError(format.at, show(format.value), 'a format with %s, %d, %v and %%, without flags and widths');
  const verbs = parts.filter((part) => typeof part === 'string');
  if (verbs.length !== args.length) {
    const found = `${counted(verbs.length, 'verb')} for ${counted(args.length, 'value')}`;
    throw new TemplateError(format.at, found, 'one of %s, %d and %v for each value');
  }
  for (const [index, verb] of verbs.entries()) {
    const arg = args[index];
    if (arg === undefined || (verb === '%v' && arg.type !== 'mixed')) continue;
    const wanted = verb === '%d' ? 'number' : 'text';
    const allowed = verb === '%v' ? 'a value of one kind for %v' : `${nounOf(wanted)} for ${verb}`;
    if (arg.type !== wanted) throw new TemplateError(arg.at, nounOf(arg.type), allowed);
  }
}

function commonType(args: readonly Expression[]): ValueType {
  const first = args[0]?.type ?? 'mixed';
  return args.every(({ type }) => type === first) ? first : 'mixed';
}

/** `a text` */
export function nounOf(type: ValueType): string {
  return { text: 'a text', flag: 'true or false', number: 'a number', mixed: 'either of values of several kinds' }[type];
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
