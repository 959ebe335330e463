import type { RuleFact, RuleList } from '../admin/messages.ts';
import { askAgent } from './admin.ts';
import type { Context } from './command.ts';
import type { ExitCode } from './exit-codes.ts';
import { EXIT } from './exit-codes.ts';
import { jsonDocument, printable, table, type Paint } from './render.ts';

/** Lists the rules that the agent of this node follows. */
export async function rules(context: Context): Promise<ExitCode> {
  const { args, paint, print } = context;
  const json = args.json;
  return askAgent<RuleList>(context, '/v1/rules', undefined, async (answer) => {
    await print(json ? jsonDocument(answer) : describeRules(answer.rules, paint));
    return EXIT.ok;
  });
}

export function describeRules(rules: readonly RuleFact[], paint: Paint): string {
  if (rules.length === 0) return 'There are no rules.\n';
  const rows = rules.map((rule) => [
    rule.problem === undefined ? paint('green', '✓') : paint('red', '✗'),
    printable(rule.kind),
    printable(rule.name),
    printable(rule.class_name),
    String(rule.pods_selected),
    rule.pods_failed === 0 ? '0' : paint('red', String(rule.pods_failed)),
    String(rule.entries_masked),
  ]);
  const problems = rules.filter(({ problem }) => problem !== undefined);
  const list = problems.map(
    ({ kind, name, problem }) => `  ${printable(kind)} ${printable(name)}: ${printable(problem ?? '')}\n`,
  );
  const headings = ['', 'KIND', 'NAME', 'CLASS', 'PODS', 'FAILED', 'MASKED'];
  return table(headings, rows, paint) + (list.length === 0 ? '' : `\n${paint('bold', 'Problems')}\n${list.join('')}`);
}
