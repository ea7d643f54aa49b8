#pragma once

#include <set>
#include <string>

#include "cli/options/options.hpp"

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// Refuses each option that is given and could change nothing where it stands, whatever its value: who gave it expects
/// something else. What only a model, a file or the environment can tell is left to those who know it. Those of
/// `recorded`, which a record added, may be idle; they are returned. Throws CLI::ValidationError naming the option and
/// what it is for.
std::set<std::string> refuse_idle_options(const CLI::App& app, const Options& options,
                                          const std::set<std::string>& recorded = {});

/// The same of `rometrace calibrate`.
void refuse_idle_calibrate_options(const CLI::App& command, const Options& options);

/// The same of `rometrace summary`, as far as its own options tell.
void refuse_idle_summary_options(const CLI::App& command, const SummaryOptions& options);

}  // namespace rometrace::cli
