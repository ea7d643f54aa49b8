#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/options/options.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace rometrace::cli {

/// Options that several commands have. Values go to what is given, which has to stay until the command line is read.

void add_model_options(CLI::App& app, Options& options);  ///< --model, --revision, --download, --edit

struct SampleOptions {
  CLI::Option* sample;
  CLI::Option* seed;
};
/// --sample and --sample-seed.
SampleOptions add_sample_options(CLI::App& app, Selection& selection);

/// --ids, --sample, --sample-seed, --limit and --shard; the shard's value goes to `shard` as it is, for read_shard().
/// Returns them, that they can be tied to others.
std::vector<CLI::Option*> add_selection_options(CLI::App& app, Selection& selection, std::string& shard);

/// Reads the value of --shard, where it was given; `source` says where `auto` found it. Throws Error.
void read_shard(const std::string& text, std::optional<Shard>& shard, std::string& source);

/// -o and --json, of a result that is one JSON or a text for people.
void add_output_options(CLI::App& app, std::optional<std::string>& output, bool& json);

/// --memory, --device, --threads.
void add_machine_options(CLI::App& app, Options& options);

/// The same, --dtype and --tf32.
void add_run_options(CLI::App& app, Options& options);

/// Refuses values of add_run_options() that do not go together. Throws CLI::ParseError.
void check_run_options(const Options& options);

/// Refuses an empty name. Throws CLI::ParseError.
void check_facts_files(const std::vector<std::string>& files);

}  // namespace rometrace::cli
