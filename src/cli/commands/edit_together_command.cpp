#include "cli/commands/edit_together_command.hpp"

#include <spdlog/spdlog.h>

#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cli/commands/batch_work.hpp"
#include "cli/commands/edit_output.hpp"
#include "cli/commands/edit_session.hpp"
#include "cli/commands/edit_task.hpp"
#include "cli/exit_status.hpp"
#include "cli/progress_bar.hpp"
#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {
namespace {

// The prompt with {} in the subject's place.
std::string template_of(const Wording& wording) {
  return wording.prompt.substr(0, wording.subject.begin) + std::string(kSubjectSlot) +
         wording.prompt.substr(wording.subject.end);
}

// One model cannot say two things of the same subject.
class Contradictions {
 public:
  /// Throws Error naming this fact and one before it.
  void add(const Fact& fact) {
    check({fact.subject, "prompt", template_of(fact.wordings.front())}, fact);
    if (fact.relation) check({fact.subject, "relation", *fact.relation}, fact);
  }

 private:
  struct Key {
    std::string subject, what, value;
    auto operator<=>(const Key&) const = default;
  };

  void check(const Key& key, const Fact& fact) {
    const auto [found, is_new] = first_.emplace(key, &fact);
    const auto& first = *found->second;
    if (is_new || first.new_object == fact.new_object) return;
    throw Error(fact.where + ": " + in_quotes(fact.subject) + " is to have the new object " +
                in_quotes(*fact.new_object) + " for the " + key.what + " " + in_quotes(key.value) + ", and by " +
                first.where + " " + in_quotes(*first.new_object) + "; expected one of the two (--ids chooses)");
  }

  std::map<Key, const Fact*> first_;
};

std::vector<EditTask> tasks_of(const Work& work) {
  std::vector<EditTask> tasks;
  Contradictions contradictions;
  for (const auto& item : work.items) {
    if (const auto* bad = std::get_if<BadRecord>(item.record)) {
      throw Error(bad->message + " (--together: all facts or none)");
    }
    const auto& fact = std::get<Fact>(*item.record);
    const auto* missing = !fact.new_object ? "new object (object_new, target_new)"
                          : !fact.object   ? "old object"
                                           : nullptr;
    if (missing != nullptr) {
      throw Error(fact.where + ": has no " + missing + "; expected one in each fact of --together (--ids chooses)");
    }
    contradictions.add(fact);
    tasks.push_back(task_of(fact));
  }
  return tasks;
}

}  // namespace

int run_edit_together(const EditOptions& options, const std::stop_token& stop) {
  constexpr std::int64_t kGreedyTokens = 10;
  EditOutput output(options);
  FactsOptions facts;
  facts.selection = options.selection;
  const auto work = choose_work(read_edit_facts(facts_files(options.facts)), facts);
  const auto tasks = tasks_of(work);
  if (tasks.size() > 1 && options.method != EditMethod::kMemit) {
    throw Error("--together: " + count_of(static_cast<std::int64_t>(tasks.size()), "fact") + " for the method " +
                std::string(to_string(options.method)) + ", which edits one; --method memit edits many");
  }
  EditSession session(options, stop);
  choose_threads(options.run, session.model(), typical_length(work, session.tokenizer()));
  for (const auto& task : tasks) session.refuse_if_said(task);
  const auto layers = session.layers_for(nullptr);
  session.prepare(layers);
  ProgressBar bar(options.run.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto made = session.edit(tasks, layers, kGreedyTokens, bar.callback());
  output.write(session, made, layers, {}, stop);
  return kDone;
}

}  // namespace rometrace::cli
