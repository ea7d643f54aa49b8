#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cli/merge_command.hpp"
#include "cli/summary_command.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/study/facts.hpp"
#include "rometrace/study/probe.hpp"
#include "rometrace/study/shard.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::cli {

/// What `--facts` adds: a batch instead of one prompt.
struct FactsOptions {
  std::vector<std::string> files;  ///< "-" is standard input
  Selection selection;
  std::optional<Shard> shard;
  std::string shard_source;  ///< where `--shard auto` found it; empty: given
  Follow follow = Follow::kPrediction;
  OnOtherAnswer on_other_answer = OnOtherAnswer::kSkip;
  bool strict = false;
  bool probe = false;       ///< knowing and saying, without tracing
  bool only_known = false;  ///< trace what is known by `known_by`
  KnownRule known_by;
  std::int64_t share = 0;  ///< facts that share a sweep at most; 0: as many as pay
};

/// The command line of a trace or a batch, checked as far as that is possible without a model.
struct Options {
  std::optional<FactsOptions> facts;  ///< none: one prompt
  std::string prompt;
  std::string subject;
  std::optional<std::string> model;  ///< folder or name; none: ROMETRACE_MODEL, else the demo model
  std::string revision = "main";
  std::vector<Kind> kinds;
  std::int64_t window = 10;
  std::int64_t samples = 10;
  std::uint32_t seed = 1;
  std::string noise_text = "s3";  ///< as given
  NoiseRule noise;
  std::optional<std::string> noise_facts;  ///< facts file whose subjects set sigma; none: the one shipped
  bool replace = false;
  std::optional<std::string> target;
  std::optional<std::string> expect;
  bool special_tokens = false;
  Engine engine = Engine::kSweep;
  std::optional<std::int64_t> memory;  ///< bytes of rows the sweep may hold; none: of what is free
  std::string device = "cpu";
  std::string dtype = "float32";
  bool tf32 = false;
  int threads = 0;                    ///< 0: one a core, or one for small models
  std::optional<std::string> output;  ///< file; none or "-": stdout
  bool json = false;
  bool verbose = false;
  bool quiet = false;
};

/// What to do, or the exit status if the command line has been dealt with (--help, --version, an error: one line
/// printed).
using Command = std::variant<Options, SummaryOptions, MergeOptions, int>;
Command parse_options(int argc, char** argv);

}  // namespace rometrace::cli
