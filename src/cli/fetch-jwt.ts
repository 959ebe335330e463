import type { JwtIdentity } from '../client/responses.ts';
import { messageOf } from '../errors.ts';
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts';
import { isoTime } from './certificates.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { fields, jsonDocument, printable, type Paint } from './render.ts';
import { claimRows, viewToken } from './tokens.ts';
import { UsageError } from './usage-error.ts';

export async function fetchJwt({ args, io, paint, print, client }: Context): Promise<ExitCode> {
  const json = args.json;
  const audience = args.texts('audience');
  if (audience.length === 0) {
    throw new UsageError('--audience is missing: name whom the token is for, for example --audience spiffe://example.org/db');
  }
  const id = parseId(args.text('id'));
  const svids = await (await client()).fetchJwtSvids({ audience, id }, { signal: io.signal });
  const nowMs = io.now();
  const people = (): string => svids.map((svid) => describeJwt(svid, nowMs, paint)).join('\n');
  await print(json ? jsonDocument({ svids: svids.map(viewJwt) }) : people());
  return EXIT.ok;
}

function parseId(text: string | undefined): SpiffeId | undefined {
  try {
    return text === undefined ? undefined : parseSpiffeId(text);
  } catch (error) {
    throw new UsageError(`--id: ${messageOf(error)}`, { cause: error });
  }
}

function viewJwt(svid: JwtIdentity): object {
  const { id, hint, expiresAt, token } = svid;
  return { spiffe_id: id, hint, expires_at: isoTime(expiresAt), ...viewToken(token), token };
}

function describeJwt(svid: JwtIdentity, nowMs: number, paint: Paint): string {
  const { header, claims } = viewToken(svid.token);
  return [
    `${paint('bold', 'JWT-SVID')}\n`,
    fields([['SPIFFE ID', paint('green', svid.id)], ['Hint', ...(svid.hint === '' ? [] : [printable(svid.hint)])]], paint),
    `${paint('bold', 'Header')}\n${fields(claimRows(header, nowMs), paint)}`,
    `${paint('bold', 'Claims')}\n${fields(claimRows(claims, nowMs), paint)}`,
    `${paint('bold', 'Token')}\n${svid.token}\n`,
  ].join('');
}
