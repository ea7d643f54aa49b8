#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cli/commands/export_command.hpp"
#include "cli/commands/families_command.hpp"
#include "cli/commands/fetch_command.hpp"
#include "cli/commands/merge_command.hpp"
#include "cli/commands/models_command.hpp"
#include "cli/commands/show_command.hpp"
#include "cli/commands/summary_command.hpp"
#include "rometrace/edit/rome.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/facts/shard.hpp"
#include "rometrace/study/answer_rule.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/study/probe.hpp"
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
  std::optional<SubjectPlace> subject_at;  ///< none: the first occurrence, or {} in the prompt
  std::optional<std::string> model;        ///< folder or name; none: ROMETRACE_MODEL, else the demo model
  std::optional<std::string> revision;     ///< of a model given by name; none: "main"
  bool download = false;                   ///< fetch a model that is not in the cache
  std::vector<std::string> edits;          ///< edit files that are applied to it, in this order
  std::vector<Kind> kinds;                 ///< none: neurons alone
  std::optional<NeuronOptions> neurons;
  PositionRule positions;
  std::int64_t window = 10;
  std::int64_t head_window = 1;
  std::int64_t knockout_window = 9;
  bool window_given = false, knockout_window_given = false;  ///< else these are the defaults
  Direction direction = Direction::kDenoising;
  CorruptionMethod method = CorruptionMethod::kNoise;  ///< kTokens in a batch: swapped subjects
  std::optional<std::string> counter_subject, counter_prompt;
  std::int64_t samples = 10;
  std::optional<double> precision;
  std::int64_t most_samples = 1000;
  std::uint32_t seed = 1;
  std::string noise_text = "s3";  ///< as given
  NoiseRule noise;
  std::optional<std::string> noise_facts;      ///< facts file whose subjects set sigma; none: the one shipped
  std::optional<std::string> noise_text_file;  ///< text whose tokens set moments; none: the shipped facts' prompts
  bool replace = false;
  std::vector<std::string> targets;  ///< the answer to follow, then others; in a batch "object" or none
  AnswerRule answer;
  std::vector<Measure> measures;
  std::optional<std::string> foil;
  std::optional<std::string> expect;
  bool special_tokens = false;
  Engine engine = Engine::kSweep;
  std::optional<std::int64_t> memory;  ///< bytes of weights and rows together; none: of what is free
  std::string device = "cpu";
  std::string dtype = "float32";
  bool tf32 = false;
  int threads = 0;                    ///< 0: one a core, or one for small models
  std::optional<std::string> output;  ///< file; none or "-": stdout
  bool json = false;
  bool self_check = false;  ///< laws on the model instead of a trace
  bool verbose = false;
  bool quiet = false;
};

/// The command line of `rometrace calibrate`.
struct CalibrateOptions {
  Options trace;                                            ///< with `facts`; its noise is that of factor 1
  std::vector<double> factors = {1, 1.5, 2, 2.5, 3, 4, 5};  ///< ascending
};

/// The command line of `rometrace edit`.
struct EditOptions {
  Options run;  ///< model, prompt, subject, running; its output is the edit file or the results of --each
  std::optional<std::string> target;                 ///< the new object
  std::optional<std::string> true_object;            ///< the old one; none: the fact's, else the model's answer
  std::vector<std::string> paraphrases, neighbours;  ///< whole prompts
  EditMethod method = EditMethod::kRRome;
  std::vector<std::int64_t> layers;  ///< none: by family and depth
  bool layer_by_trace = false;       ///< the peak of the MLP's windows at the subject's last token
  bool all_layers = false;           ///< with `each`: one layer after the other
  std::optional<std::int64_t> steps;
  std::optional<double> rate, decay, clamp, kl, lambda;  ///< none: by family
  std::string templates = "generated";                   ///< or "none", or a file
  std::uint32_t seed = 1;                                ///< of the templates that are generated
  bool no_moment = false;
  std::optional<std::string> moments;  ///< a file of them
  std::vector<std::string> texts;      ///< files that they are collected of
  std::optional<std::int64_t> text_tokens;
  std::optional<std::string> perplexity_text;
  bool trace = false;
  bool force = false;
  std::vector<std::string> facts;  ///< of `each` and `together` what is edited, else where things are looked up
  Selection selection;             ///< of these
  std::optional<Shard> shard;
  std::string shard_text;    ///< of --shard, until check_edit() reads it
  std::string shard_source;  ///< where `--shard auto` found it; empty: given
  bool each = false, together = false;
  EditEngine engine = EditEngine::kFast;
  std::optional<std::string> show;   ///< print this edit file's record
  std::optional<std::string> write;  ///< make a checkpoint in this folder
};

/// The command line of `rometrace moments`.
struct MomentsOptions {
  Options trace;                     ///< its output is the moments' file
  std::vector<std::string> texts;    ///< files; "-" is standard input
  std::vector<std::int64_t> layers;  ///< ascending
  std::optional<std::int64_t> tokens;
};

/// The command line of `rometrace repeat`.
struct RepeatOptions {
  Options run;                      ///< model, running, output; what was asked is the file's
  std::string file;                 ///< "-" is standard input
  std::vector<std::string> ids;     ///< none: all
  std::vector<std::string> facts;   ///< files whose fingerprints are compared
  std::optional<double> tolerance;  ///< none: by the dtype
  bool device_given = false;        ///< else the file's
};

/// What to do, or the exit status if the command line has been dealt with (--help, --version, an error: one line
/// printed).
using Command =
    std::variant<Options, SummaryOptions, MergeOptions, CalibrateOptions, EditOptions, MomentsOptions, RepeatOptions,
                 FetchModelsOptions, ModelsOptions, FamiliesOptions, ExportOptions, ShowOptions, int>;
Command parse_options(int argc, char** argv);

}  // namespace rometrace::cli
