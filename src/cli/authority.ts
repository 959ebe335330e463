import type { AuthorityKeyFact, AuthorityRootFact, AuthorityView, OrderAnswer } from '../admin/messages.ts';
import { askAgent } from './admin.ts';
import type { Context, Run } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { jsonDocument, printable, table, type Paint, type Style } from './render.ts';
import { formatDistance, formatTime } from './time.ts';
import { UsageError } from './usage-error.ts';

/** Lists the keys that sign, have signed and will sign. */
export async function showAuthority(context: Context): Promise<ExitCode> {
  const { args, io, paint, print } = context;
  const json = args.json;
  return askAgent<AuthorityView>(context, '/v1/authority', undefined, async (answer) => {
    await print(json ? jsonDocument(answer) : describeAuthority(answer, io.now(), paint));
    return EXIT.ok;
  });
}

export const prepareAuthority: Run = (context) => order(context, 'prepare', { kind: kindOf(context) });
export const activateAuthority: Run = (context) => order(context, 'activate', { kind: kindOf(context), ...forceOf(context) });
export const taintAuthority: Run = (context) => order(context, 'taint', { id: idOf(context), ...forceOf(context) });
export const revokeAuthority: Run = (context) => order(context, 'revoke', { id: idOf(context) });

async function order(context: Context, command: string, body: object): Promise<ExitCode> {
  const { args, paint, print } = context;
  const json = args.json;
  const text = JSON.stringify(args.flag('dry-run') ? { ...body, dry_run: true } : body);
  return askAgent<OrderAnswer>(context, `/v1/authority/${command}`, text, async (answer) => {
    await print(json ? jsonDocument(answer) : describeOrder(answer, paint));
    return EXIT.ok;
  });
}

/** @throws UsageError */
function kindOf({ args }: Context): 'x509' | 'jwt' {
  const [kind] = args.positionals;
  if (kind === 'x509' || kind === 'jwt') return kind;
  throw new UsageError(`the kind of key is ${JSON.stringify(kind)}; allowed is x509 or jwt`);
}

/** @throws UsageError */
function idOf({ args }: Context): string {
  const [id = ''] = args.positionals;
  if (/^[A-Za-z0-9_-]{6,128}$/.test(id)) return id;
  const allowed = 'one of "signet authority show", or at least 6 characters of its beginning';
  throw new UsageError(`the ID is ${JSON.stringify(id)}; allowed is ${allowed}`);
}

function forceOf({ args }: Context): { force?: true } {
  return args.flag('force') ? { force: true } : {};
}

const STYLES: Readonly<Record<AuthorityKeyFact['state'], Style>> = { prepared: 'yellow', active: 'green', old: 'dim', tainted: 'red' };

export function describeAuthority({ keys, roots }: AuthorityView, nowMs: number, paint: Paint): string {
  const sections = [table(['KIND', 'STATE', 'IN THE BUNDLE', 'SIGNS', 'GIVEN UP', 'ID'], keys.map((key) => keyRow(key, nowMs, paint)), paint, '')];
  if (roots.length > 0) {
    const rows = roots.map((root) => rootRow(root, nowMs));
    sections.push(`${paint('bold', 'Roots above')}\n${table(['IN THE BUNDLE', 'USABLE', 'ENDS', 'NAME', 'SHA-256'], rows, paint)}`);
  }
  const waiting = keys.flatMap((key) => (key.usable_from === undefined ? [] : [waitingLine(key, nowMs)]));
  return [...sections, ...(waiting.length === 0 ? [] : [waiting.join('')])].join('\n');
}

function keyRow(key: AuthorityKeyFact, nowMs: number, paint: Paint): string[] {
  const since = key.published_since === undefined ? 'its root is' : distance(key.published_since, nowMs);
  const signs = { prepared: `from ${distance(key.activates_at, nowMs)}`, active: 'yes', old: 'no more', tainted: 'never' }[key.state];
  return [key.kind, paint(STYLES[key.state], key.state), since, signs, distance(key.leaves_at, nowMs), printable(key.id)];
}

function rootRow(root: AuthorityRootFact, nowMs: number): string[] {
  const { published_since: since, usable_from: usable, left_at: left, not_after: end, subject, id } = root;
  const isUsable = Date.parse(usable) <= nowMs;
  const state = left === undefined ? (isUsable ? 'yes' : distance(usable, nowMs)) : 'given up above';
  return [distance(since, nowMs), state, distance(end, nowMs), printable(subject), printable(id).slice(0, 16)];
}

function waitingLine({ kind, usable_from: usable = '', activates_at: byItself }: AuthorityKeyFact, nowMs: number): string {
  const isUsable = Date.parse(usable) <= nowMs;
  const when = isUsable ? 'can be activated now' : `can be activated from ${formatTime(Date.parse(usable))} on`;
  return `The prepared key (${kind}) ${when}: "signet authority activate ${kind}". By itself it signs from ${formatTime(Date.parse(byItself))} on.\n`;
}

/** What happens now, or what would. */
export function describeOrder({ done, key, says }: OrderAnswer, paint: Paint): string {
  const title = done ? paint('green', 'Done') : paint('bold', 'Nothing is done; this would happen');
  const about = key === undefined || !done ? '' : ` (${key.kind} ${printable(key.id)}: ${key.state})`;
  return `${title}${about}:\n${says.map((sentence) => `  ${printable(sentence)}.\n`).join('')}`;
}

function distance(time: string, nowMs: number): string {
  return formatDistance(Date.parse(time), nowMs);
}
