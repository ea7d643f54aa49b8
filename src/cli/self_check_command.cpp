#include "cli/self_check_command.hpp"

#include <algorithm>
#include <iostream>

#include "cli/exit_status.hpp"
#include "cli/session.hpp"
#include "rometrace/study/facts.hpp"
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

}  // namespace

int run_self_check(const Options& options, const std::stop_token& stop) {
  const auto located = locate_model(options, stop);
  const auto tokenizer = Tokenizer::load(located.folder);
  const auto model = load_model(options, located.folder);
  SelfCheck check{*model, tokenizer, read_sigma(options, *model, tokenizer), {}, std::nullopt};
  check.control.stop = stop;
  check.control.memory = memory_for_rows(options, *model, 1);
  if (options.noise_facts) check.paper_subjects = read_subjects(*options.noise_facts);
  const bool all = self_check(check, [](const Finding& finding) {
    std::cout << word(finding.outcome) << "  " << finding.claim << " (" << finding.detail << ")" << std::endl;
  });
  std::cout << (all ? "all that was checked holds" : "not all holds") << std::endl;
  return all ? kDone : kSomeNotTraced;
}

}  // namespace rometrace::cli
