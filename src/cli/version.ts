import { readFile } from 'node:fs/promises';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { jsonDocument } from './render.ts';

export async function version({ args, print }: Context): Promise<ExitCode> {
  // The same depth below src/ and below dist/.
  const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  const { version: own } = JSON.parse(text) as { version: string };
  const node = process.versions.node;
  await print(args.json ? jsonDocument({ version: own, node }) : `signet ${own} (Node ${node})\n`);
  return EXIT.ok;
}
