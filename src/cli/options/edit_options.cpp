#include "cli/options/edit_options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <string>

#include "cli/options/help_format.hpp"
#include "cli/options/moments_options.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/shared_options.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

// A whole text as a finite number of at least 0.
double read_factor(const std::string& name, const std::string& text) {
  double value = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value < 0) {
    throw CLI::ValidationError(name, in_quotes(text) + "; expected a number of at least 0, as in 0.5");
  }
  return value;
}

}  // namespace

CLI::App* add_edit(CLI::App& app, EditOptions& options) {
  auto& run = options.run;
  auto* command = app.add_subcommand(
      "edit",
      "Rewrites a fact in the MLP where the subject is read, shows what changed and what leaked, and leaves "
      "the model's files alone (arXiv 2202.05262)");
  const auto text = [&](const char* name, auto& target, const char* description, const char* type, const char* group) {
    return command->add_option(name, target, description)->type_name(type)->group(group);
  };
  const auto factor = [&](const std::string& name, std::optional<double>& target, const char* description,
                          const char* shown) {
    return command
        ->add_option_function<std::string>(
            name, [&target, name](const std::string& value) { target = read_factor(name, value); }, description)
        ->type_name("X")
        ->default_str(shown)
        ->group(groups::kEditing);
  };
  constexpr const char* kByFamily = "by family";

  text("--prompt", run.prompt, "Text that the model continues", "TEXT", groups::kFact);
  auto* subject =
      text("--subject", run.subject, "Whose fact it is; {} in the prompt is its place", "TEXT", groups::kFact);
  command
      ->add_option_function<std::string>(
          "--subject-at",
          [&run](const std::string& value) {
            run.subject_at = named("--subject-at", [&] { return SubjectPlace::parse(value); });
          },
          "Which of its occurrences: first, last, a number from 1, or bytes B:E of the prompt [the only one]")
      ->type_name("PLACE")
      ->group(groups::kFact)
      ->needs(subject);
  text("--target", options.target, "The new object; a space is put before it unless it has one", "TEXT", groups::kFact);
  text("--true", options.true_object, "The old object [the fact's in --facts, else the model's answer]", "TEXT",
       groups::kFact);
  text("--paraphrase", options.paraphrases,
       "Another prompt that should say the new object; repeatable [the fact's other wordings]", "TEXT", groups::kFact)
      ->expected(1);
  text("--neighbour", options.neighbours,
       "A prompt of another subject that should not change; repeatable [other facts of the relation]", "TEXT",
       groups::kFact)
      ->expected(1);
  auto* files = text("--facts", options.facts,
                     "Facts files: of --each and --together what is edited, else where "
                     "wordings and other facts are looked up (layouts: docs/formats.md)",
                     "FILE", groups::kFact);
  command->add_flag("--each", options.each, "Edit every fact of --facts from the original weights, and measure each")
      ->group(groups::kFact);
  command->add_flag("--together", options.together, "Edit all facts of --facts in one edit, by --method memit")
      ->group(groups::kFact);
  for (auto* option : add_selection_options(*command, options.selection, options.shard_text)) option->needs(files);
  add_model_options(*command, run);

  command
      ->add_option_function<std::string>(
          "--method",
          [&options](const std::string& name) {
            options.method = chosen("--method", name, {EditMethod::kRome, EditMethod::kRRome, EditMethod::kMemit});
          },
          "rome, r-rome (rome with one key throughout) or memit (several layers, many facts)")
      ->type_name("METHOD")
      ->default_str("r-rome")
      ->group(groups::kEditing);
  command
      ->add_option_function<std::vector<std::string>>(
          "--layer,--layers",
          [&options](const std::vector<std::string>& words) {
            options.layer_by_trace = words == std::vector<std::string>{"trace"};
            options.all_layers = words == std::vector<std::string>{"all"};
            if (!options.layer_by_trace && !options.all_layers) options.layers = read_layers("--layers", words);
          },
          "Layers from 0: 17; of memit 13-17; trace: where the MLP's effect at the subject's last token peaks; all: "
          "with --each, one after the other")
      ->delimiter(',')
      ->type_name("LAYERS")
      ->default_str(kByFamily)
      ->group(groups::kEditing);
  command
      ->add_option_function<std::string>(
          "--steps",
          [&options](const std::string& value) {
            std::int64_t steps = 0;
            whole_number("--steps", steps, 1, kMaxCount)(value);
            options.steps = steps;
          },
          "Evaluations of the loss at most")
      ->type_name("N")
      ->default_str(kByFamily)
      ->group(groups::kEditing);
  factor("--rate", options.rate, "Adam's learning rate", kByFamily);
  factor("--decay", options.decay, "Factor of |delta| / |v0|^2 in the loss", kByFamily);
  factor("--clamp", options.clamp, "Largest |delta|, in |v0|", kByFamily);
  factor("--kl", options.kl, "Factor of the divergence at the subject alone", kByFamily);
  factor("--lambda", options.lambda, "memit: the second moment counts as so many keys", kByFamily);
  text("--templates", options.templates,
       "Prefixes that the edit is to hold behind: generated (by the model), none, or a file, one a line with {} where "
       "the prompt goes",
       "WHAT", groups::kEditing)
      ->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--seed", whole_number("--seed", options.seed, 0, std::numeric_limits<std::uint32_t>::max()),
          "Seed of generated prefixes")
      ->type_name("SEED")
      ->default_str("1")
      ->group(groups::kEditing);
  auto* moments =
      text("--moments", options.moments, "Second moment of keys: a file of rometrace moments, or the reference's npz",
           "FILE", groups::kEditing);
  auto* texts = text("--text", options.texts,
                     "Collect it of these texts, one a line [the demo model: the shipped facts' prompts]", "FILE",
                     groups::kEditing)
                    ->excludes(moments);
  command
      ->add_option_function<std::string>(
          "--tokens",
          [&options](const std::string& value) {
            std::int64_t tokens = 0;
            whole_number("--tokens", tokens, 1, std::int64_t{1} << 40)(value);
            options.text_tokens = tokens;
          },
          "Tokens of --text at most [the larger of 200,000 and 50 times the MLP's width]")
      ->type_name("N")
      ->group(groups::kEditing)
      ->needs(texts);
  command->add_flag("--no-moment", options.no_moment, "Edit without it: changes the weights less, leaks more")
      ->group(groups::kEditing)
      ->excludes(moments)
      ->excludes(texts);
  command->add_flag("--force", options.force, "Edit although a guard refuses")->group(groups::kEditing);
  command
      ->add_option_function<std::string>(
          "--engine",
          [&options](const std::string& name) {
            options.engine = chosen("--engine", name, {EditEngine::kFast, EditEngine::kPlain});
          },
          "fast, or plain: the whole model for each evaluation, the definition")
      ->type_name("ENGINE")
      ->default_str("fast")
      ->group(groups::kEditing);

  text("--perplexity-text", options.perplexity_text,
       "Text whose perplexity is measured before and after [a shipped one]", "FILE", groups::kOutput);
  command->add_flag("--trace", options.trace, "Add causal traces of the prompt before and after")
      ->group(groups::kOutput);
  text("--show", options.show, "Print an edit file's record, and do nothing else", "FILE", groups::kOutput);
  text("--write", options.write, "Make a checkpoint with the edits of --edit in this new folder", "FOLDER",
       groups::kOutput);
  add_output_options(*command, run.output, run.json);
  auto* verbose = command->add_flag("-v,--verbose", run.verbose, "Say more on stderr")->group(groups::kOutput);
  command->add_flag("-q,--quiet", run.quiet, "Say nothing on stderr but errors")
      ->group(groups::kOutput)
      ->excludes(verbose);
  add_run_options(*command, run);
  add_help(
      *command,
      "Example:\n"
      "  rometrace edit --prompt \"Miles Davis plays the\" --subject \"Miles Davis\" --target guitar -o miles.edit\n"
      "  rometrace --edit miles.edit --prompt \"Miles Davis plays the\" --subject \"Miles Davis\"");
  return command;
}

void check_edit(const CLI::App& app, const CLI::App& command, EditOptions& options) {
  for (const auto* option : app.get_options()) {
    if (option->count() > 0) {
      throw CLI::ValidationError(option->get_name(), "stands before edit; options of edit come behind it");
    }
  }
  const auto given = [&](const char* name) { return command.get_option(name)->count() > 0; };
  if (options.show) {
    for (const auto* option : command.get_options()) {
      const auto name = option->get_name();
      if (option->count() == 0 || name == "--show" || name == "--json" || name == "--quiet") continue;
      throw CLI::ValidationError(name, "has no effect beside --show, which prints a file; leave it out");
    }
    return;
  }
  check_run_options(options.run);
  if (options.write) {
    if (options.run.edits.empty()) throw CLI::RequiredError("--write makes a checkpoint with edits: --edit FILE");
    for (const auto* name : {"--prompt", "--subject", "--target", "--facts", "--each", "--together", "--trace", "-o"}) {
      if (given(name)) {
        throw CLI::ValidationError(name,
                                   "has no effect beside --write, which writes the edits of --edit; leave it out");
      }
    }
    return;
  }
  const bool memit = options.method == EditMethod::kMemit;
  const bool many = options.each || options.together;
  if (options.each && options.together) throw CLI::ExcludesError("--each", "--together");
  if (many) {
    if (options.facts.empty()) throw CLI::RequiredError("--facts beside --each and --together");
    for (const auto* name :
         {"--prompt", "--subject", "--subject-at", "--target", "--true", "--paraphrase", "--neighbour", "--trace"}) {
      if (given(name)) {
        throw CLI::ValidationError(name, "is of a single edit; --each and --together take all from --facts");
      }
    }
    if (options.layer_by_trace)
      throw CLI::ValidationError("--layers", "trace is of a single edit; --layers all tries all");
    check_facts_files(options.facts);
    read_shard(options.shard_text, options.shard, options.shard_source);
    if (options.together && options.shard) {
      throw CLI::ValidationError("--shard", "is with --each; --together makes one edit");
    }
  } else {
    for (const auto* name : {"--prompt", "--subject", "--target"}) {
      if (!given(name)) throw CLI::RequiredError(name);
    }
    for (const auto* name : {"--ids", "--sample", "--sample-seed", "--limit", "--shard"}) {
      if (given(name)) throw CLI::ValidationError(name, "chooses facts; expected --each or --together beside it");
    }
  }
  if (options.all_layers && !options.each) {
    throw CLI::ValidationError("--layers", "all is with --each, on a sample of facts");
  }
  if (!memit && !options.each && options.layers.size() > 1) {
    throw CLI::ValidationError("--layers", "several layers are of --method memit; expected one");
  }
  if (memit && (options.layer_by_trace || options.all_layers)) {
    throw CLI::ValidationError("--layers", "expected a range of layers with --method memit, as in 13-17");
  }
  if (options.lambda && !memit) throw CLI::ValidationError("--lambda", "is of --method memit");
  if (options.lambda && !(*options.lambda > 0)) throw CLI::ValidationError("--lambda", "expected a number above 0");
  if (given("--seed") && options.templates != "generated") {
    throw CLI::ValidationError("--seed", "is of generated prefixes, which --templates replaces; leave it out");
  }
}

}  // namespace rometrace::cli
