import { WorkloadApiError } from '../client/workload-api-error.ts';
import type { Context } from './command.ts';
import { isoTime } from './certificates.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { describeContext, viewContext } from './identities.ts';
import { formatTime } from './time.ts';

/** Prints each X.509 update until `--count` is reached, the user interrupts, or (with `--timeout`) no first update comes. */
export async function watch(context: Context): Promise<ExitCode> {
  const { args, io, client } = context;
  const json = args.json;
  const count = args.count('count') ?? Infinity;
  const timeoutMs = args.duration('timeout');
  const api = await client();
  let seen = 0;
  const waiting = new AbortController();
  const giveUp = (): void => (seen === 0 ? waiting.abort() : undefined);
  if (timeoutMs !== undefined) AbortSignal.timeout(timeoutMs).addEventListener('abort', giveUp, { once: true });
  let last: Error | undefined;
  let notes = Promise.resolve();
  const onTrouble = (error: Error, retryMs: number | undefined): void => {
    last = error;
    notes = notes.then(() => context.note(describeTrouble(error, retryMs)));
  };
  for await (const update of api.watchX509({ signal: AbortSignal.any([io.signal, waiting.signal]), onTrouble })) {
    seen += 1;
    await context.print(json ? `${JSON.stringify(viewUpdate(seen, update, io.now()))}\n` : describeUpdate(seen, update, context));
    if (seen >= count) break;
  }
  await notes;
  if (waiting.signal.aborted) throw last ?? new WorkloadApiError('timed_out', 4, 'no update came');
  // Without --count an interrupt is how a watch ends.
  return count !== Infinity && seen < count ? EXIT.interrupted : EXIT.ok;
}

type Update = Parameters<typeof viewContext>[0];

function viewUpdate(number: number, update: Update, nowMs: number): object {
  return { update: number, time: isoTime(nowMs), ...viewContext(update, nowMs) };
}

function describeUpdate(number: number, update: Update, { io, paint }: Context): string {
  const nowMs = io.now();
  const title = paint('bold', `── update ${number}, ${formatTime(nowMs)}`);
  const body = update.identities.length === 0 ? 'All identities were withdrawn.\n' : describeContext(update, nowMs, paint);
  return `${title}\n${body}\n`;
}

function describeTrouble(error: Error, retryMs: number | undefined): string {
  if (retryMs === undefined) return `an update was not valid and is ignored: ${error.message}`;
  const noIdentity = error instanceof WorkloadApiError && error.code === 'no_identity';
  const what = noIdentity ? `no identity now (${error.message})` : error.message;
  return `${what}; next attempt in ${(retryMs / 1_000).toFixed(1)} s`;
}
