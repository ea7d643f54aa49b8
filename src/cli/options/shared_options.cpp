#include "cli/options/shared_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "cli/options/help_format.hpp"
#include "cli/options/option_values.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

const std::vector<std::string> kDtypes = {"float32", "float64", "bfloat16", "float16"};

/// Bytes: a number with K, M, G or T (times 1024) behind it, or none; "MB" and "MiB" mean M as well.
std::int64_t parse_size(const std::string& name, const std::string& text) {
  double number = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  std::string unit(error == std::errc() ? stop : end, end);
  for (const auto* ending : {"iB", "B"}) {
    if (unit.ends_with(ending)) {
      unit.resize(unit.size() - std::strlen(ending));
      break;
    }
  }
  const std::string units = " KMGT";
  const auto power = unit.empty() ? 0 : unit.size() == 1 ? units.find(unit[0]) : std::string::npos;
  const double bytes = std::ldexp(number, 10 * static_cast<int>(power));
  if (error != std::errc() || power == std::string::npos || unit == " " || !(bytes >= 1 && bytes < 0x1p62)) {
    throw CLI::ValidationError(name,
                               in_quotes(text) + " is not a size; expected a number with K, M, G or T, as in 300M");
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace

void add_model_options(CLI::App& app, Options& options) {
  app.add_option(
         "--model", options.model,
         "Model folder in Hugging Face layout, a GGUF file, or a name in the local Hugging Face cache (gpt2-xl) "
         "[the demo model]")
      ->type_name("MODEL")
      ->group(groups::kModel);
  app.add_option("--revision", options.revision, "Branch, tag or commit of a model given by name [main]")
      ->type_name("REV")
      ->group(groups::kModel);
  app.add_flag("--download", options.download, "Fetch a model given by name if it is not in the cache")
      ->group(groups::kModel);
  app.add_option("--edit", options.edits, "An edit of the model, as rometrace edit makes it; repeatable, in order")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->group(groups::kModel);
}

SampleOptions add_sample_options(CLI::App& app, Selection& selection) {
  auto* sample = app.add_option_function<std::string>(
                        "--sample",
                        [&selection](const std::string& text) {
                          std::int64_t count = 0;
                          whole_number("--sample", count, 1, kMaxCount)(text);
                          selection.sample = count;
                        },
                        "Only this many of them, drawn at random")
                     ->type_name("N")
                     ->group(groups::kFacts);
  auto* seed = app.add_option_function<std::string>("--sample-seed",
                                                    whole_number("--sample-seed", selection.sample_seed, 0,
                                                                 std::numeric_limits<std::uint32_t>::max()),
                                                    "Seed of that draw")
                   ->type_name("SEED")
                   ->default_str("1")
                   ->group(groups::kFacts);
  return {sample, seed};
}

std::vector<CLI::Option*> add_selection_options(CLI::App& app, Selection& selection, std::string& shard) {
  auto* ids = app.add_option("--ids", selection.ids, "Only the facts with these ids")
                  ->delimiter(',')
                  ->type_name("IDS")
                  ->group(groups::kFacts);
  const auto sampling = add_sample_options(app, selection);
  sampling.seed->needs(sampling.sample);
  auto* limit = app.add_option_function<std::string>(
                       "--limit",
                       [&selection](const std::string& text) {
                         std::int64_t count = 0;
                         whole_number("--limit", count, 1, kMaxCount)(text);
                         selection.limit = count;
                       },
                       "Only the first of these")
                    ->type_name("N")
                    ->group(groups::kFacts);
  auto* part = app.add_option("--shard", shard,
                              "Part I of N (2/4) of these, or auto: the rank that srun, mpirun or torchrun gave; -o "
                              "x.jsonl becomes x.2-of-4.jsonl")
                   ->type_name("I/N")
                   ->group(groups::kFacts);
  return {ids, sampling.sample, sampling.seed, limit, part};
}

void read_shard(const std::string& text, std::optional<Shard>& shard, std::string& source) {
  if (text.empty()) return;
  if (text != "auto") {
    shard = parse_shard(text);
    return;
  }
  const auto found = shard_from_environment([](const char* name) { return std::getenv(name); });
  shard = found.shard;
  source = found.source;
}

void add_machine_options(CLI::App& app, Options& options) {
  app.add_option_function<std::string>(
         "--memory", [&options](const std::string& text) { options.memory = parse_size("--memory", text); },
         "What weights and restored runs may take together (300M, 20G): runs that do not fit are left for another "
         "pass, weights that do not fit are read again for each [weights what is free; runs half of the free memory, "
         "on the CPU 512M unless a prompt needs more]")
      ->type_name("SIZE")
      ->group(groups::kRunning);
  app.add_option(
         "--device", options.device,
         "cpu, cuda (under srun, mpirun or torchrun the local rank's GPU), cuda:<i>, or cuda:all: facts shared by "
         "all GPUs")
      ->type_name("DEVICE")
      ->capture_default_str()
      ->group(groups::kRunning);
  app.add_option_function<std::string>("--threads", whole_number("--threads", options.threads, 1, 4096),
                                       "CPU threads [one for each core that may be used]")
      ->type_name("N")
      ->group(groups::kRunning);
}

void add_run_options(CLI::App& app, Options& options) {
  add_machine_options(app, options);
  app.add_option(
         "--dtype", options.dtype,
         "Of the matrix products: float32, float64, bfloat16, or float16 (GPU). The rest stays in float32 or float64")
      ->type_name("DTYPE")
      ->capture_default_str()
      ->group(groups::kRunning);
  app.add_flag("--tf32", options.tf32, "Let a GPU round float32 products to TF32: faster, three digits")
      ->group(groups::kRunning);
}

void add_output_options(CLI::App& app, std::optional<std::string>& output, bool& json) {
  app.add_option("-o,--output", output, "Write the JSON to this file instead of stdout; - is stdout")
      ->type_name("FILE")
      ->group(groups::kOutput);
  app.add_flag("--json", json, "Write the JSON to stdout, even if it is a terminal or -o is given")
      ->group(groups::kOutput);
}

void check_run_options(const Options& options) {
  if (std::find(kDtypes.begin(), kDtypes.end(), options.dtype) == kDtypes.end()) {
    throw CLI::ValidationError(
        "--dtype", in_quotes(options.dtype) + " is not a dtype; expected float32, float64, bfloat16 or float16");
  }
}

void check_facts_files(const std::vector<std::string>& files) {
  for (const auto& file : files) {
    if (file.empty()) {
      throw CLI::ValidationError("--facts", "an empty file name; expected a facts file, or - for stdin");
    }
  }
}

}  // namespace rometrace::cli
