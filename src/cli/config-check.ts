import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { jsonDocument } from './render.ts';

/** Reads a configuration of the agent and tells all that is wrong with it. Nothing is started. */
export async function configCheck({ args, io, paint, print, note }: Context): Promise<ExitCode> {
  const { ConfigError, formatProblems, loadConfig } = await import('../config/load.ts');
  const json = args.json;
  const [path = ''] = args.positionals;
  try {
    const config = loadConfig(path, io.env);
    const text = `${paint('green', 'good')}: ${path} (trust domain ${config.trustDomain})\n`;
    await print(json ? jsonDocument({ valid: true, file: path, trust_domain: config.trustDomain, problems: [] }) : text);
    return EXIT.ok;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    if (json) await print(jsonDocument({ valid: false, file: path, problems: error.problems }));
    else await note(formatProblems(error).trimEnd());
    return EXIT.usage;
  }
}
