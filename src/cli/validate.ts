import { WorkloadApiError } from '../client/workload-api-error.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { readText } from './io.ts';
import { fields, jsonDocument } from './render.ts';
import { claimRows } from './tokens.ts';
import { CommandError, UsageError } from './usage-error.ts';

/** Longer than any token an agent accepts. */
const MOST_BYTES = 1 << 20;

export async function validate({ args, io, paint, print, client }: Context): Promise<ExitCode> {
  const json = args.json;
  const audience = args.text('audience');
  if (audience === undefined) throw new UsageError('--audience is missing: name whom the token must be for');
  const [given = ''] = args.positionals;
  const token = (given === '-' ? await readText(io.stdin, MOST_BYTES, io.signal) : given).trim();
  if (token === '') throw new UsageError('the token is empty');
  const api = await client();
  const { id, claims } = await api.validateJwtSvid({ audience, token }, { signal: io.signal }).catch((error: unknown) => {
    if (!(error instanceof WorkloadApiError && error.code === 'invalid_argument')) throw error;
    const next = 'get a fresh one for this audience from whoever presented it';
    throw new CommandError(`the token is not valid: ${error.message}`, next, { cause: error });
  });
  const people = (): string =>
    `${paint('bold', 'Valid')} for ${paint('green', id)}\n${fields(claimRows(claims, io.now()), paint)}`;
  await print(json ? jsonDocument({ valid: true, spiffe_id: id, claims }) : people());
  return EXIT.ok;
}
