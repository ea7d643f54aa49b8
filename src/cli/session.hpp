#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "cli/options/options.hpp"
#include "rometrace/edit/edit_stack.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/replicas.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"
#include "rometrace/work/workers.hpp"

namespace rometrace::cli {

/// The model that the options name, found but not loaded.
struct NamedFolder {
  std::string name;  ///< as the user gave it
  std::filesystem::path folder;
};

/// `--model`, else ROMETRACE_MODEL, else the demo model (said on stderr); with `--download` it is fetched if it is not
/// in the cache. Throws Error, Interrupted.
NamedFolder locate_model(const Options& options, const std::stop_token& stop);

/// The edit files of `--edit`; says on stderr what a user should know of how they go together. Throws Error.
EditStack read_edits(const Options& options);

/// Loads the model in the dtype and on the device of the options, with the edits, whose tensors are checked; layers are
/// streamed where all weights would take more than `--memory`, or what is free, allows (said on stderr). `stop` as in
/// LoadOptions, and `transposes`: a trace makes too few backwards for second copies. Throws Error, Interrupted.
std::shared_ptr<const Decoder> load_model(const Options& options, const std::filesystem::path& folder,
                                          const EditStack& edits, const std::stop_token& stop,
                                          Transposes transposes = Transposes::kNone);

/// What `--device` names, where many facts are shared out: every GPU with cuda:all (said on stderr). Throws Error.
std::vector<c10::Device> devices_of(const Options& options);

/// The same model on each of the devices, all streamed or none: as the smallest memory of one allows.
Replicas load_models(const Options& options, const std::filesystem::path& folder, const EditStack& edits,
                     const std::stop_token& stop, const std::vector<c10::Device>& devices,
                     Transposes transposes = Transposes::kNone);

/// Throws Error, led by the option's name, if the model lacks a layer or a neuron that is to be traced.
void check_neurons(const Options& options, const Decoder& model);

/// Says on stderr if a window that was not given is too wide for the model, as window_note() has it.
void say_window_note(const Options& options, const Decoder& model);

/// Tokens that are run: the prompt's and, but for the last, the answer's.
std::int64_t length_of(const TracePrompt& prompt);

/// Warns of a longest text of so many tokens if it is longer than those that the model was made for.
void say_length_note(const Decoder& model, std::int64_t tokens);

/// Bytes for the rows of patched runs: what `--memory` leaves beside the weights that are held, else a default of what
/// is free. Throws Error if that is less than `least`.
std::int64_t memory_for_rows(const Options& options, const Decoder& model, std::int64_t least);

/// Traces a prompt whose clean run is known, by the engine of the options and within their memory; `progress` may be
/// empty. Says with -v what a sweep computed. Throws Error, Interrupted.
Trace trace_prompt(const Options& options, const Decoder& model, const TracePrompt& prompt, const TraceOptions& asked,
                   const CleanRun& clean, Workers& workers, const Progress& progress, const std::stop_token& stop);

/// What results record of the model, without the fingerprint of its weights.
ModelRecord model_record(const std::string& name, const Decoder& model, const EditStack& edits);

/// What results record of the run, without its seconds.
RunRecord run_record(const Options& options, const Decoder& model);

/// The options of a trace, but for the corruption.
TraceOptions trace_options(const Options& options);

/// The subjects whose embeddings set sigma, and the file that they are from, for messages.
struct SubjectList {
  std::vector<std::string> subjects;
  std::string where;
};

/// The corruption of the options: what of it depends on the model, and the text that it is of, if any.
struct CorruptionChoice {
  CorruptionOptions corruption;
  std::optional<TextRecord> text;
};

/// Reads it; `own` as for read_sigma. Moments of a text are kept in the user's cache. Throws Error.
CorruptionChoice read_corruption(const Options& options, const Decoder& model, const Tokenizer& tokenizer,
                                 const std::optional<SubjectList>& own = std::nullopt);

/// The noise rule's scale or, where it is a factor, that times the standard deviation of the embeddings of subjects:
/// those of `--noise-facts`, else `own` (a batch's), else of the facts that rometrace ships. Throws Error.
double read_sigma(const Options& options, const Decoder& model, const Tokenizer& tokenizer,
                  const std::optional<SubjectList>& own = std::nullopt);

/// CPU threads for traces of prompts of this length, where the options do not set them.
void choose_threads(const Options& options, const Decoder& model, std::size_t prompt_tokens, std::int64_t prompts = 1);

/// The same, and workers to share what is large: --threads of them, else one for each core that this process may use.
/// They are `threads` in results.
std::unique_ptr<Workers> start_workers(const Options& options, const Decoder& model, std::size_t prompt_tokens);

/// The one token that an option's value is. Throws Error naming the option.
std::int32_t one_token(const Tokenizer& tokenizer, const std::string& option, const std::string& text);

/// The tokens of an option's value; errors name the option.
std::vector<Token> encode_option(const Tokenizer& tokenizer, const std::string& option, const std::string& text);

/// The SHA-256 of a model's weights, computed beside other work, which its edits must be for. Gives up when it is
/// destroyed, or on a stop. `edits` is kept by reference.
class WeightsHash {
 public:
  WeightsHash(const Decoder& model, const EditStack& edits, const std::stop_token& stop);
  ~WeightsHash() { source_.request_stop(); }
  WeightsHash(const WeightsHash&) = delete;
  WeightsHash& operator=(const WeightsHash&) = delete;

  /// Waits; to be called once, before anything is written. Throws Error, also where an edit is of other weights;
  /// Interrupted.
  std::string get();

 private:
  const EditStack& edits_;
  std::stop_source source_;
  std::stop_callback<std::function<void()>> relay_;
  std::latch ready_{1};
  std::future<std::string> result_;
};

}  // namespace rometrace::cli
