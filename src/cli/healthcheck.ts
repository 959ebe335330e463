import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { jsonDocument } from './render.ts';

export async function healthcheck({ args, io, paint, print, client }: Context): Promise<ExitCode> {
  const json = args.json;
  const api = await client();
  const serving = await api.isServing({ signal: io.signal });
  const text = serving
    ? `${paint('green', 'healthy')}: ${api.target} serves`
    : `${paint('red', 'not healthy')}: ${api.target} answers but does not serve`;
  await print(json ? jsonDocument({ healthy: serving, endpoint: api.target }) : `${text}\n`);
  return serving ? EXIT.ok : EXIT.refused;
}
