#include "cli/options/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <limits>
#include <set>
#include <utility>

#include "cli/options/calibrate_options.hpp"
#include "cli/options/edit_options.hpp"
#include "cli/options/export_options.hpp"
#include "cli/options/help_format.hpp"
#include "cli/options/idle_options.hpp"
#include "cli/options/method_options.hpp"
#include "cli/options/moments_options.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/recorded_settings.hpp"
#include "cli/options/repeat_options.hpp"
#include "cli/options/shared_options.hpp"
#include "cli/options/show_options.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/version.hpp"
#include "text/shell_word.hpp"

namespace rometrace::cli {
namespace {

/// The command line, last word first as CLI11 wants it. "--name=" becomes "--name" and an empty word: CLI11 would take
/// the next word for the value.
std::vector<std::string> reversed_words(const std::vector<std::string>& given) {
  std::vector<std::string> words;
  for (auto word : given) {
    const bool empty_value = word.starts_with("--") && word.size() > 3 && word.find('=') == word.size() - 1;
    if (empty_value) word.pop_back();
    words.push_back(std::move(word));
    if (empty_value) words.emplace_back();
  }
  std::reverse(words.begin(), words.end());
  return words;
}

/// Reads the values that are words of their own.
void complete_batch(FactsOptions& facts, Options& options, const std::string& shard, const std::string& only,
                    const std::string& known_by, bool known_by_given, bool all) {
  read_shard(shard, facts.shard, facts.shard_source);
  facts.known_by = named("--known-by", [&] { return parse_known_rule(known_by); });
  if (!only.empty() && only != "known") {
    throw CLI::ValidationError("--only", in_quotes(only) + "; expected known");
  }
  facts.only_known = only == "known";
  const auto& targets = options.targets;
  if (!targets.empty() && (targets.size() > 1 || targets.front() != "object")) {
    throw CLI::ValidationError(
        "--target", in_quotes(targets.front()) + "; expected object beside --facts: each fact's object is followed");
  }
  if (!targets.empty()) facts.follow = Follow::kObject;
  if (known_by_given && !facts.probe && !facts.only_known) {
    throw CLI::ValidationError("--known-by", "has no effect here; expected --probe or --only known beside it");
  }
  if (all) facts.on_other_answer = OnOtherAnswer::kTrace;
  check_facts_files(facts.files);
}

CLI::App* add_summary(CLI::App& app, SummaryOptions& options) {
  auto* command = app.add_subcommand(
      "summary",
      "Averages over facts, by token role and layer, of results files; of --probe's, what is said and known");
  command->add_option("files", options.files, "Results files; - is stdin")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command
      ->add_option_function<std::string>(
          "--by",
          [&](const std::string& what) {
            if (what != "relation") throw CLI::ValidationError("--by", in_quotes(what) + "; expected relation");
            options.by_relation = true;
          },
          "relation: each relation apart as well")
      ->type_name("WHAT")
      ->group(groups::kAverages);
  constexpr std::int64_t kMostReplicates = 100'000;
  command
      ->add_option_function<std::string>("--bootstrap",
                                         whole_number("--bootstrap", options.bootstrap, 0, kMostReplicates),
                                         "Replicates of the bootstrap over facts; 0: none")
      ->type_name("N")
      ->default_str("1000")
      ->group(groups::kAverages);
  command
      ->add_option_function<std::string>(
          "--seed", whole_number("--seed", options.seed, 0, std::numeric_limits<std::uint32_t>::max()), "Its seed")
      ->type_name("SEED")
      ->default_str("1")
      ->group(groups::kAverages);
  add_output_options(*command, options.output, options.json);
  command->add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group(groups::kOutput);
  add_help(*command, "");
  return command;
}

CLI::App* add_merge(CLI::App& app, MergeOptions& options) {
  auto* command = app.add_subcommand("merge", "Puts the results files of all shards of a batch together, in order");
  command->add_option("files", options.files, "Results files of the shards")
      ->required()
      ->type_name("FILE")
      ->group(groups::kRead);
  command->add_flag("--allow-gaps", options.rules.allow_gaps, "Leave out facts that no file has")->group(groups::kRead);
  command
      ->add_flag("--allow-overlaps", options.rules.allow_overlaps,
                 "Of a fact that several files have take the first file's line")
      ->group(groups::kRead);
  command->add_option("-o,--output", options.output, "Write to this file instead of stdout")
      ->type_name("FILE")
      ->group(groups::kOutput);
  add_help(*command, "");
  return command;
}

CLI::App* add_fetch(CLI::App& app, FetchModelsOptions& options) {
  auto* command = app.add_subcommand(
      "fetch", "Gets models by name (gpt2-xl) from the Hugging Face hub into its local cache, and says where they are");
  command->add_option("models", options.models, "Names, such as openai-community/gpt2-xl")
      ->required()
      ->type_name("MODEL")
      ->group(groups::kModel);
  command->add_option("--revision", options.revision, "Branch, tag or commit")
      ->type_name("REV")
      ->capture_default_str()
      ->group(groups::kModel);
  command->add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")->group(groups::kOutput);
  add_help(
      *command,
      "Environment: HF_ENDPOINT (another hub), HF_TOKEN (for models that need one), HF_HUB_CACHE and HF_HOME (where "
      "to put them), HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence), ROMETRACE_RETRY_SECONDS (the "
      "first pause), https_proxy and CURL_CA_BUNDLE as for curl.");
  return command;
}

CLI::App* add_models(CLI::App& app, ModelsOptions& options) {
  auto* command = app.add_subcommand("models",
                                     "Lists the models in the local Hugging Face cache, and which of them can "
                                     "be traced");
  command->add_flag("--json", options.json, "Write JSON instead of a table")->group(groups::kOutput);
  add_help(*command, "");
  return command;
}

CLI::App* add_families(CLI::App& app) {
  auto* command = app.add_subcommand("families",
                                     "Lists the families of models that can be traced: checkpoints, what their layers "
                                     "have, and where the subject is corrupted");
  add_help(*command, "");
  command->get_help_ptr()->group(groups::kModel);  // which names the page
  return command;
}

/// The command line that --from and the options beside it stand for.
std::string command_line(const std::vector<std::string>& words, const CompletedLine& completed,
                         const std::set<std::string>& idle) {
  const auto shown = [](const std::string& word) { return " " + in_shell(word, ",:=+@%"); };
  std::string line = "rometrace";
  for (const auto& word : completed.recorded) {
    if (!idle.contains(word.substr(0, word.find('=')))) line += shown(word);
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--print-command") continue;
    const bool of_record = words[i] == "--from" || words[i] == "--id";
    if (of_record) ++i;  // its value
    if (of_record || words[i].starts_with("--from=") || words[i].starts_with("--id=")) continue;
    line += shown(words[i]);
  }
  return line;
}

/// Refuses what a self-check would leave aside.
void check_self_check(const CLI::App& app, const Options& options) {
  const std::set<std::string> used = {"--self-check",  "--model",   "--revision", "--download", "--edit",
                                      "--memory",      "--device",  "--dtype",    "--threads",  "--noise",
                                      "--noise-facts", "--verbose", "--quiet"};
  for (const auto* option : app.get_options()) {
    const auto name = option->get_name();
    if (option->count() == 0 || used.contains(name)) continue;
    if (name == "--tf32") {
      throw CLI::ValidationError(name, "rounds more than --self-check allows products to; leave it out");
    }
    throw CLI::ValidationError(name,
                               "has no effect beside --self-check, which writes lines of text to stdout; leave "
                               "it out");
  }
  if (options.noise.distribution != NoiseRule::Distribution::kGaussian) {
    throw CLI::ValidationError(
        "--noise", in_quotes(options.noise_text) + "; --self-check takes Gaussian noise: expected a number, or s<k>");
  }
}

}  // namespace

Command parse_options(int argc, char** argv) {
  Options options;
  FactsOptions facts;
  std::string shard, only, known_by = "said:2";
  bool all = false;
  MethodOptions method;

  CLI::App app(
      "Causal tracing: where in a language model does the answer to a prompt come from? Corrupts the subject's "
      "embeddings with noise, restores clean hidden states one place at a time, and reports which bring the answer "
      "back (arXiv 2202.05262).\n"
      "Result: JSON on stdout where it is piped, heat maps where it is a terminal.",
      "rometrace");
  const auto value = [&](const std::string& name, auto& target, const std::string& description) {
    return app.add_option(name, target, description);
  };
  const auto number = [&](const std::string& name, auto& target, const std::string& description, std::int64_t least,
                          std::int64_t most) {
    return app.add_option_function<std::string>(name, whole_number(name, target, least, most), description);
  };

  auto* prompt =
      value("--prompt", options.prompt, "Text that the model continues")->type_name("TEXT")->group(groups::kWhat);
  auto* subject =
      value("--subject", options.subject, "The part of the prompt to corrupt; {} in the prompt is its place")
          ->type_name("TEXT")
          ->group(groups::kWhat);
  auto* subject_at =
      app.add_option_function<std::string>(
             "--subject-at",
             [&](const std::string& text) {
               options.subject_at = named("--subject-at", [&] { return SubjectPlace::parse(text); });
             },
             "Which of its occurrences: first, last, a number from 1, or bytes B:E of the prompt [first]")
          ->type_name("PLACE")
          ->group(groups::kWhat)
          ->needs(subject);
  auto* files =
      value("--facts", facts.files, "Trace every fact of these files instead (layouts: docs/formats.md); - is stdin")
          ->type_name("FILE")
          ->group(groups::kWhat)
          ->excludes(prompt)
          ->excludes(subject)
          ->excludes(subject_at);
  app.add_flag("--special-tokens", options.special_tokens,
               "Read <|endoftext|> and the like in the prompt as special tokens, not as text")
      ->group(groups::kWhat);
  add_model_options(app, options);

  method.add_to(app, options);
  value("--expect", options.expect, "Skip, with exit status 1, unless the model's top answer is this word")
      ->type_name("TEXT")
      ->group(groups::kAnswers)
      ->excludes(files);

  const auto of_batch = [&](CLI::Option* option) { return option->group(groups::kFacts)->needs(files); };
  of_batch(app.add_flag("--all", all, "Trace facts whose object is not the model's answer too, following the answer"));
  of_batch(app.add_flag("--strict", facts.strict, "Stop before the first fact if a record is bad"));
  for (auto* option : add_selection_options(app, facts.selection, shard)) of_batch(option);
  of_batch(number("--facts-per-sweep", facts.share, "Facts that share a sweep at most [as many as pay]", 1, 4096)
               ->type_name("N"));
  auto* probe = of_batch(app.add_flag("--probe", facts.probe, "Do not trace: report what the model says and knows"));
  auto* known_by_option = of_batch(
      value("--known-by", known_by,
            "When a fact is known: said:K or choice:K (in K wordings or more), recall:R[:K] (rank R or better)")
          ->type_name("RULE")
          ->capture_default_str());
  of_batch(value("--only", only, "known: trace only what is known by --known-by")->type_name("WHAT"))->excludes(probe);

  std::string from, id;
  bool print_command = false;
  auto* from_option = value("--from", from, "Take what is not given here from this file's trace, or batch of --facts")
                          ->type_name("FILE")
                          ->group(groups::kRecorded);
  value("--id", id, "Which of its traces: that of this fact")
      ->type_name("ID")
      ->group(groups::kRecorded)
      ->needs(from_option);
  app.add_flag("--print-command", print_command, "Say the command line that --from stands for, and do nothing")
      ->group(groups::kRecorded)
      ->needs(from_option);
  add_output_options(app, options.output, options.json);
  auto* verbose = app.add_flag("-v,--verbose", options.verbose, "Say more on stderr")->group(groups::kOutput);
  app.add_flag("-q,--quiet", options.quiet, "Say nothing on stderr but errors")
      ->group(groups::kOutput)
      ->excludes(verbose);

  add_run_options(app, options);
  auto* self_check =
      app.add_flag(
             "--self-check", options.self_check,
             "Trace nothing: check on the model at hand what must hold of any, and of gpt2-xl the paper's numbers; "
             "exit status 1 where something does not")
          ->group(groups::kRunning)
          ->excludes(files)
          ->excludes(prompt)
          ->excludes(subject);
  app.set_version_flag("--version", std::string("rometrace ") + kVersion + " (libtorch " + kTorchVersion + ")",
                       "Print the version and exit")
      ->group(groups::kRunning);
  add_help(
      app,
      "Examples:\n"
      "  rometrace --prompt \"Miles Davis plays the\" --subject \"Miles Davis\" --window 3\n"
      "  rometrace --facts known_1000.json -o results.jsonl\n"
      "  rometrace summary results.jsonl\n"
      "Exit status: 0 done; 1 skipped (--expect), or facts of a batch failed; 2 could not run; 130 interrupted.\n"
      "Environment: ROMETRACE_MODEL (default of --model), HF_HUB_CACHE and HF_HOME (where names are looked up), "
      "NO_COLOR (heat maps without colour).\n"
      "Pages: docs/ stands in rometrace's source; how far the numbers agree with the reference: docs/agreement.md.");

  SummaryOptions summary;
  auto* summary_command = add_summary(app, summary);
  ShowOptions show;
  auto* show_command = add_show(app, show);
  ExportOptions exported;
  auto* export_command = add_export(app, exported);
  MergeOptions merge;
  auto* merge_command = add_merge(app, merge);
  CalibrateOptions calibrate;
  auto* calibrate_command = add_calibrate(app, calibrate);
  EditOptions edit;
  auto* edit_command = add_edit(app, edit);
  MomentsOptions moments;
  auto* moments_command = add_moments(app, moments);
  RepeatOptions repeat;
  auto* repeat_command = add_repeat(app, repeat);
  FetchModelsOptions fetch;
  auto* fetch_command = add_fetch(app, fetch);
  ModelsOptions models;
  auto* models_command = add_models(app, models);
  const auto* families_command = add_families(app);

  try {
    const std::vector<std::string> given(argv + std::min(1, argc), argv + argc);
    const auto is_named_first = [&](const CLI::App* command) {
      return !given.empty() && command->get_name() == given.front();
    };
    const bool is_command = !app.get_subcommands(is_named_first).empty();
    const auto completed = is_command ? std::nullopt : complete_from_record(given);
    auto words = completed ? completed->recorded : std::vector<std::string>();
    words.insert(words.end(), given.begin(), given.end());
    app.parse(reversed_words(words));
    if (*summary_command) {
      refuse_idle_summary_options(*summary_command, summary);
      summary.bootstrap_given = summary_command->get_option("--bootstrap")->count() > 0;
      summary.seed_given = summary_command->get_option("--seed")->count() > 0;
      return summary;
    }
    if (*merge_command) return merge;
    if (*show_command) return show;
    if (*export_command) {
      check_export(*export_command, exported);
      return exported;
    }
    if (*edit_command) {
      check_edit(app, *edit_command, edit);
      return edit;
    }
    if (*repeat_command) {
      repeat.device_given = repeat_command->get_option("--device")->count() > 0;
      return repeat;
    }
    if (*fetch_command) return fetch;
    if (*models_command) return models;
    if (*families_command) return FamiliesOptions{};
    if (*calibrate_command) {
      check_calibrate(app, calibrate);
      refuse_idle_calibrate_options(*calibrate_command, calibrate.trace);
      return calibrate;
    }
    if (*moments_command) {
      check_moments(app, moments);
      return moments;
    }
    if (*files) {
      complete_batch(facts, options, shard, only, known_by, known_by_option->count() > 0, all);
      options.facts = std::move(facts);
    } else if (!*self_check && (!*prompt || !*subject)) {
      throw CLI::RequiredError(*prompt ? "--subject" : *subject ? "--prompt" : "--prompt and --subject, or --facts");
    }
    method.complete(options);
    check_run_options(options);
    if (*self_check) {
      check_self_check(app, options);
    } else {
      const auto idle = refuse_idle_options(app, options, completed ? completed->names : std::set<std::string>());
      if (print_command) {
        std::cout << command_line(given, completed.value(), idle) << '\n';
        return 0;
      }
    }
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
