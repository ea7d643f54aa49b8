#include "cli/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/version.hpp"

namespace rometrace::cli {
namespace {

const std::vector<std::pair<std::string, Kind>> kKinds = {
    {"state", Kind::kState}, {"mlp", Kind::kMlp}, {"attn", Kind::kAttn}};

std::vector<Kind> parse_kinds(const std::vector<std::string>& names) {
  std::vector<Kind> kinds;
  for (const auto& name : names) {
    const auto known = std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& kind) { return kind.first == name; });
    if (known == kKinds.end()) {
      throw CLI::ValidationError("--kinds", in_quotes(name) + " is not a kind; expected state, mlp or attn");
    }
    if (std::find(kinds.begin(), kinds.end(), known->second) == kinds.end()) kinds.push_back(known->second);
  }
  return kinds;
}

const std::vector<std::string> kDtypes = {"float32", "float64", "bfloat16", "float16"};

Engine parse_engine(const std::string& name) {
  if (name == "sweep") return Engine::kSweep;
  if (name == "plain") return Engine::kPlain;
  throw CLI::ValidationError("--engine", in_quotes(name) + " is not an engine; expected sweep or plain");
}

/// A whole number in decimal digits, within [least, most]. CLI11's own reading takes "010" for eight.
template <typename Number>
std::function<void(const std::string&)> whole_number(const std::string& name, Number& number, std::int64_t least,
                                                     std::int64_t most) {
  return [=, &number](const std::string& text) {
    std::int64_t value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || value < least || value > most) {
      throw CLI::ValidationError(name, in_quotes(text) + "; expected a whole number from " + std::to_string(least) +
                                           " to " + std::to_string(most));
    }
    number = static_cast<Number>(value);
  };
}

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

/// The command line, last word first as CLI11 wants it. "--name=" becomes "--name" and an empty word: CLI11 would take
/// the next word for the value.
std::vector<std::string> reversed_words(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    const bool empty_value = word.starts_with("--") && word.size() > 3 && word.find('=') == word.size() - 1;
    if (empty_value) word.pop_back();
    words.push_back(std::move(word));
    if (empty_value) words.emplace_back();
  }
  std::reverse(words.begin(), words.end());
  return words;
}

/// The value that `read` gives; its errors begin with the option's name.
template <typename Read>
auto named(const std::string& name, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(name + ": " + error.what());
  }
}

/// Reads the values that are words of their own.
void complete_batch(FactsOptions& facts, Options& options, const std::string& shard, const std::string& only,
                    const std::string& known_by, bool known_by_given, bool all) {
  if (!shard.empty()) {
    if (shard == "auto") {
      const auto found = shard_from_environment([](const char* name) { return std::getenv(name); });
      facts.shard = found.shard;
      facts.shard_source = found.source;
    } else {
      facts.shard = parse_shard(shard);
    }
  }
  facts.known_by = named("--known-by", [&] { return parse_known_rule(known_by); });
  if (!only.empty() && only != "known") {
    throw CLI::ValidationError("--only", in_quotes(only) + "; expected known");
  }
  facts.only_known = only == "known";
  if (options.target && *options.target != "object") {
    throw CLI::ValidationError(
        "--target", in_quotes(*options.target) + "; expected object beside --facts: each fact's object is followed");
  }
  if (options.target) facts.follow = Follow::kObject;
  options.target.reset();
  if (known_by_given && !facts.probe && !facts.only_known) {
    throw CLI::ValidationError("--known-by", "has no effect here; expected --probe or --only known beside it");
  }
  if (facts.probe && (all || facts.follow == Follow::kObject)) {
    throw CLI::ValidationError("--probe", "traces nothing; leave out --all and --target");
  }
  if (all) facts.on_other_answer = OnOtherAnswer::kTrace;
  for (const auto& file : facts.files) {
    if (file.empty())
      throw CLI::ValidationError("--facts", "an empty file name; expected a facts file, or - for stdin");
  }
}

CLI::App* add_summary(CLI::App& app, SummaryOptions& options) {
  auto* command = app.add_subcommand(
      "summary",
      "Averages over facts, by token role and layer, of results files; of --probe's, what is said and known");
  command->add_option("files", options.files, "Results files; - is stdin")->required()->type_name("FILE");
  command
      ->add_option_function<std::string>(
          "--by",
          [&](const std::string& what) {
            if (what != "relation") throw CLI::ValidationError("--by", in_quotes(what) + "; expected relation");
            options.by_relation = true;
          },
          "relation: each relation apart as well")
      ->type_name("WHAT");
  constexpr std::int64_t kMostReplicates = 100'000;
  command
      ->add_option_function<std::string>("--bootstrap",
                                         whole_number("--bootstrap", options.bootstrap, 0, kMostReplicates),
                                         "Replicates of the bootstrap over facts; 0: none")
      ->type_name("N")
      ->default_str("1000");
  command
      ->add_option_function<std::string>(
          "--seed", whole_number("--seed", options.seed, 0, std::numeric_limits<std::uint32_t>::max()), "Its seed")
      ->type_name("SEED")
      ->default_str("1");
  command->add_option("-o,--output", options.output, "Write the JSON to this file instead of stdout; - is stdout")
      ->type_name("FILE");
  command->add_flag("--json", options.json, "Write the JSON to stdout, even if it is a terminal or -o is given");
  command->add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors");
  return command;
}

CLI::App* add_merge(CLI::App& app, MergeOptions& options) {
  auto* command = app.add_subcommand("merge", "Puts the results files of all shards of a batch together, in order");
  command->add_option("files", options.files, "Results files of the shards")->required()->type_name("FILE");
  command->add_option("-o,--output", options.output, "Write to this file instead of stdout")->type_name("FILE");
  command->add_flag("--allow-gaps", options.rules.allow_gaps, "Leave out facts that no file has");
  command->add_flag("--allow-overlaps", options.rules.allow_overlaps,
                    "Of a fact that several files have take the first file's line");
  return command;
}

}  // namespace

Command parse_options(int argc, char** argv) {
  Options options;
  FactsOptions facts;
  std::string shard, only, known_by = "said:2";
  bool all = false;
  std::vector<std::string> kinds = {"state", "mlp", "attn"};
  std::string engine = "sweep";

  CLI::App app(
      "Causal tracing: where in a GPT-2 model does the answer to a prompt come from? Corrupts the subject's\n"
      "embeddings with noise, restores clean hidden states one place at a time, and reports which bring the\n"
      "answer back (arXiv 2202.05262).\n"
      "Result: JSON on stdout where it is piped, heat maps where it is a terminal.\n",
      "rometrace");
  app.set_version_flag("--version", std::string("rometrace ") + kVersion + " (libtorch " + kTorchVersion + ")");
  app.get_formatter()->column_width(28);
  app.footer(
      "Exit status: 0 done; 1 skipped (--expect), or facts of a batch failed; 2 could not run; 130 interrupted.\n"
      "Environment: ROMETRACE_MODEL (default of --model), HF_HUB_CACHE and HF_HOME (where names are looked up),\n"
      "NO_COLOR (heat maps without colour).\n"
      "Examples: rometrace --prompt \"Miles Davis plays the\" --subject \"Miles Davis\" --window 3\n"
      "          rometrace --facts known_1000.json -o results.jsonl && rometrace summary results.jsonl");
  const auto value = [&](const std::string& name, auto& target, const std::string& description) {
    return app.add_option(name, target, description);
  };
  constexpr std::int64_t kMaxCount = std::int64_t{1} << 20;
  const auto number = [&](const std::string& name, auto& target, const std::string& description, std::int64_t least,
                          std::int64_t most) {
    return app.add_option_function<std::string>(name, whole_number(name, target, least, most), description);
  };

  auto* prompt = value("--prompt", options.prompt, "Text that the model continues")->type_name("TEXT");
  auto* subject = value("--subject", options.subject, "The part of the prompt to corrupt (its first occurrence)")
                      ->type_name("TEXT");
  auto* files = value("--facts", facts.files, "Trace every fact of these files instead (see the README); - is stdin")
                    ->type_name("FILE")
                    ->excludes(prompt)
                    ->excludes(subject);
  value("--model", options.model,
        "Model folder in Hugging Face layout, or a name in the local Hugging Face cache (gpt2-xl) [the demo model]")
      ->type_name("MODEL");
  value("--revision", options.revision, "Branch, tag or commit of a model given by name")
      ->type_name("REV")
      ->capture_default_str();

  value("--kinds", kinds, "What to restore: state, mlp, attn")
      ->delimiter(',')
      ->type_name("KINDS")
      ->capture_default_str()
      ->group("Trace");
  number("--window", options.window, "Layers restored together, for mlp and attn", 1, kMaxCount)
      ->type_name("W")
      ->default_str("10")
      ->group("Trace");
  number("--samples", options.samples, "Noise draws", 1, kMaxCount)->type_name("N")->default_str("10")->group("Trace");
  number("--seed", options.seed, "Seed of the noise (NumPy's RandomState), 0 to 4294967295", 0,
         std::numeric_limits<std::uint32_t>::max())
      ->type_name("SEED")
      ->default_str("1")
      ->group("Trace");
  value("--noise", options.noise_text,
        "A standard deviation (0.1); s<k>: k times that of the subjects' embeddings; u<x>: uniform in [-x, x]")
      ->type_name("RULE")
      ->capture_default_str()
      ->group("Trace");
  value("--noise-facts", options.noise_facts,
        "Facts file whose subjects set s<k> [a batch's own; else the one that rometrace ships]")
      ->type_name("FILE")
      ->group("Trace");
  app.add_flag("--replace", options.replace, "Put noise in place of the embeddings instead of adding it")
      ->group("Trace");
  value("--target", options.target,
        "Follow this answer (one token, mind the leading space) instead of the top one; with --facts: object")
      ->type_name("TEXT")
      ->group("Trace");
  value("--expect", options.expect, "Skip, with exit status 1, unless the model's top answer is this word")
      ->type_name("TEXT")
      ->group("Trace")
      ->excludes(files);
  app.add_flag("--special-tokens", options.special_tokens,
               "Read <|endoftext|> and the like in the prompt as special tokens, not as text")
      ->group("Trace");

  const auto of_batch = [&](CLI::Option* option) { return option->group("Batch (--facts)")->needs(files); };
  of_batch(app.add_flag("--all", all, "Trace facts whose object is not the model's answer too, following the answer"));
  of_batch(app.add_flag("--strict", facts.strict, "Stop before the first fact if a record is bad"));
  of_batch(value("--ids", facts.selection.ids, "Only the facts with these ids")->delimiter(',')->type_name("IDS"));
  auto* sample = of_batch(app.add_option_function<std::string>(
                                 "--sample",
                                 [&](const std::string& text) {
                                   std::int64_t count = 0;
                                   whole_number("--sample", count, 1, kMaxCount)(text);
                                   facts.selection.sample = count;
                                 },
                                 "Only this many of them, drawn at random")
                              ->type_name("N"));
  of_batch(number("--sample-seed", facts.selection.sample_seed, "Seed of that draw", 0,
                  std::numeric_limits<std::uint32_t>::max())
               ->type_name("SEED")
               ->default_str("1"))
      ->needs(sample);
  of_batch(app.add_option_function<std::string>(
                  "--limit",
                  [&](const std::string& text) {
                    std::int64_t count = 0;
                    whole_number("--limit", count, 1, kMaxCount)(text);
                    facts.selection.limit = count;
                  },
                  "Only the first of these")
               ->type_name("N"));
  of_batch(value("--shard", shard,
                 "Part I of N (2/4) of these, or auto: the rank that srun, mpirun or torchrun gave; -o x.jsonl "
                 "becomes x.2-of-4.jsonl")
               ->type_name("I/N"));
  of_batch(number("--facts-per-sweep", facts.share, "Facts that share a sweep at most [as many as pay]", 1, 4096)
               ->type_name("N"));
  auto* probe = of_batch(app.add_flag("--probe", facts.probe, "Do not trace: report what the model says and knows"));
  auto* known_by_option = of_batch(
      value("--known-by", known_by,
            "When a fact is known: said:K or choice:K (in K wordings or more), recall:R[:K] (rank R or better)")
          ->type_name("RULE")
          ->capture_default_str());
  of_batch(value("--only", only, "known: trace only what is known by --known-by")->type_name("WHAT"))->excludes(probe);

  value("--engine", engine,
        "sweep: all cells in one pass up the layers; plain: one run of the model a cell, as in the paper")
      ->type_name("ENGINE")
      ->capture_default_str()
      ->group("Run");
  app.add_option_function<std::string>(
         "--memory", [&](const std::string& text) { options.memory = parse_size("--memory", text); },
         "What the sweep may hold of restored runs at once (300M, 2G); the rest is left for another pass [half of the "
         "free memory; on the CPU, 512M unless a prompt needs more]")
      ->type_name("SIZE")
      ->group("Run");
  value("--device", options.device, "cpu, cuda or cuda:<i>")->type_name("DEVICE")->capture_default_str()->group("Run");
  value("--dtype", options.dtype,
        "Of the matrix products: float32, float64, bfloat16, or float16 (GPU). The rest stays in float32 or float64")
      ->type_name("DTYPE")
      ->capture_default_str()
      ->group("Run");
  app.add_flag("--tf32", options.tf32, "Let a GPU round float32 products to TF32: faster, three digits")->group("Run");
  number("--threads", options.threads, "CPU threads [one a core; 1 for small models]", 1, 4096)
      ->type_name("N")
      ->group("Run");

  value("-o,--output", options.output, "Write the JSON to this file instead of stdout; - is stdout")
      ->type_name("FILE")
      ->group("Output");
  app.add_flag("--json", options.json, "Write the JSON to stdout, even if it is a terminal or -o is given")
      ->group("Output");
  auto* verbose = app.add_flag("-v,--verbose", options.verbose, "Say more on stderr")->group("Output");
  app.add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group("Output")->excludes(verbose);

  SummaryOptions summary;
  auto* summary_command = add_summary(app, summary);
  MergeOptions merge;
  auto* merge_command = add_merge(app, merge);

  try {
    app.parse(reversed_words(argc, argv));
    if (*summary_command) return summary;
    if (*merge_command) return merge;
    if (*files) {
      complete_batch(facts, options, shard, only, known_by, known_by_option->count() > 0, all);
      options.facts = std::move(facts);
    } else if (!*prompt || !*subject) {
      throw CLI::RequiredError(*prompt ? "--subject" : *subject ? "--prompt" : "--prompt and --subject, or --facts");
    }
    options.kinds = parse_kinds(kinds);
    options.engine = parse_engine(engine);
    if (std::find(kDtypes.begin(), kDtypes.end(), options.dtype) == kDtypes.end()) {
      throw CLI::ValidationError(
          "--dtype", in_quotes(options.dtype) + " is not a dtype; expected float32, float64, bfloat16 or float16");
    }
    if (options.tf32 && options.device == "cpu") {
      throw CLI::ValidationError("--tf32", "is for a GPU; expected --device cuda beside it");
    }
    options.noise = named("--noise", [&] { return NoiseRule::parse(options.noise_text); });
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::cerr << "rometrace: " << one_line(error.what(), 400) << "; see rometrace --help\n";
    return 2;
  } catch (const Error& error) {
    std::cerr << "rometrace: " << error.what() << '\n';
    return 2;
  }
  return options;
}

}  // namespace rometrace::cli
