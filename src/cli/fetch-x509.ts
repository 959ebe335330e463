import { resolve } from 'node:path';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { describeContext, viewContext } from './identities.ts';
import { jsonDocument } from './render.ts';
import { filesOf, writeSet } from './write-files.ts';

export async function fetchX509({ args, io, paint, print, client }: Context): Promise<ExitCode> {
  const json = args.json;
  const directory = args.text('write');
  const context = await (await client()).fetchX509({ signal: io.signal });
  const files = directory === undefined ? [] : filesOf(context);
  if (directory !== undefined) await writeSet(directory, files, io.now());
  const written = directory === undefined ? [] : files.map(({ name }) => resolve(directory, name));
  if (json) {
    await print(jsonDocument({ ...viewContext(context, io.now()), ...(directory === undefined ? {} : { written }) }));
  } else {
    await print(describeContext(context, io.now(), paint));
    if (written.length > 0) await print(`\n${paint('bold', 'Written')}\n${written.map((path) => `  ${path}\n`).join('')}`);
  }
  return EXIT.ok;
}
