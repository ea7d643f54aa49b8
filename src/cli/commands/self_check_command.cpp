#include "cli/commands/self_check_command.hpp"

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/exit_status.hpp"
#include "cli/files/output_file.hpp"
#include "cli/session.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/study/self_check.hpp"

namespace rometrace::cli {
namespace {

std::string word(Finding::Outcome outcome) {
  switch (outcome) {
    case Finding::Outcome::kHolds:
      return "holds      ";
    case Finding::Outcome::kFails:
      return "FAILS      ";
    case Finding::Outcome::kNotChecked:
      return "not checked";
    case Finding::Outcome::kFound:
      return "found      ";
  }
  return "";
}

// Whether a folder in the cache is that of the hub's own GPT-2 XL. A folder of any other name says nothing.
bool is_hubs_gpt2_xl(const std::filesystem::path& folder) {
  const auto snapshots = folder.parent_path();
  const auto repository = snapshots.parent_path().filename();
  return snapshots.filename() == "snapshots" &&
         (repository == "models--gpt2-xl" || repository == "models--openai-community--gpt2-xl");
}

}  // namespace

int run_self_check(const Options& options, const std::stop_token& stop) {
  constexpr std::size_t kPromptTokens = 8;  // about as many as its prompts have
  const auto edits = read_edits(options);
  const auto located = locate_model(options, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  const auto model = load_model(options, located.folder, edits, stop);
  if (!edits.empty()) WeightsHash(*model, edits, stop).get();
  const auto workers = start_workers(options, *model, kPromptTokens);
  const auto sigma = read_sigma(options, *model, tokenizer);
  RunControl control;
  control.stop = stop;
  control.workers = workers.get();
  control.memory = memory_for_rows(options, *model, 1);
  std::optional<std::vector<std::string>> subjects;
  if (options.noise_facts) subjects = read_subjects(*options.noise_facts);
  const bool published = edits.empty() && is_hubs_gpt2_xl(located.folder);
  const SelfCheck check{*model, tokenizer, sigma, control, published, subjects, {}, !edits.empty()};
  const bool all = self_check(check, [&](const Finding& finding) {
    write_stdout(word(finding.outcome) + "  " + finding.claim + " (" + finding.detail + ")\n", stop);
  });
  write_stdout(all ? "all that was checked holds\n" : "not all holds\n", stop);
  return all ? kDone : kSomeNotTraced;
}

}  // namespace rometrace::cli
