#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "cli/commands/edit_task.hpp"
#include "cli/options/options.hpp"
#include "cli/session.hpp"
#include "rometrace/edit/defaults.hpp"
#include "rometrace/edit/edit_file.hpp"
#include "rometrace/edit/edit_stack.hpp"
#include "rometrace/edit/edited_fact.hpp"
#include "rometrace/edit/moment_factor.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace::cli {

/// An edit that has been made, and the model with it.
struct MadeEdit {
  std::vector<EditedMatrix> matrices;
  std::shared_ptr<const Decoder> model;
  std::vector<EditedFact> facts;  ///< measured
  double seconds_of_value = 0;    ///< of seeking values and making the change of them
  double seconds_of_measures = 0;
};

/// A fact that is not edited as it stands, though it could be.
class EditRefused : public Error {
 public:
  /// `cause`: "said_already", "key_ratio", one of the words of the results of --each.
  EditRefused(const char* cause, const std::string& message) : Error(message), cause_(cause) {}
  const char* cause() const { return cause_; }

 private:
  const char* cause_;
};

/// The model that is edited, and what all edits of one run have in common: method, layers, prefixes, second moments.
class EditSession {
 public:
  /// Loads the model. Throws Error, Interrupted.
  EditSession(const EditOptions& options, std::stop_token stop);

  const Decoder& model() const { return *model_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const NamedFolder& located() const { return located_; }
  const EditStack& stack() const { return stack_; }
  bool is_demo() const;
  /// Of the model's files; waits for it. Throws Error unless the stack is of them, Interrupted.
  const std::string& weights_sha256();

  /// The layers that --layer, the family's default or, with `trace`, a trace of the fact names.
  std::vector<std::int64_t> layers_for(const EditTask* task) const;

  /// Throws EditRefused if the new object is what the model says, unless that is forced.
  void refuse_if_said(const EditTask& task) const;

  /// Makes prefixes and reads or collects second moments of these layers, once. Throws Error, Interrupted.
  void prepare(std::span<const std::int64_t> layers);

  /// Edits the tasks together (one, but for MEMIT) in these layers, and measures each before and after.
  /// `greedy_tokens` are read behind each prompt. Throws EditRefused for what a guard refuses; Error, Interrupted.
  MadeEdit edit(std::span<const EditTask> tasks, std::span<const std::int64_t> layers, std::int64_t greedy_tokens,
                const EditProgress& progress);

  /// What the record of an edit says of it, without `model.weights_sha256`.
  Edit record(const MadeEdit& made, std::span<const std::int64_t> layers) const;

  /// Perplexity of the text of the options, or of the shipped one.
  EditPerplexity perplexity_of(const Decoder& before, const Decoder& after) const;

 private:
  EditRequest request_of(const EditTask& task) const;
  void collect(std::span<const std::int64_t> layers);
  std::vector<std::vector<std::int32_t>> prompts_of(const EditTask& task) const;
  void guard(const RankOneEdit& edit, const EditRequest& request) const;

  const EditOptions& options_;
  std::stop_token stop_;
  NamedFolder located_;
  Tokenizer tokenizer_;
  EditStack stack_;
  std::shared_ptr<const Decoder> base_, model_;  // without and with the edits of the stack
  WeightsHash hash_;
  std::string weights_sha256_;  // once it is known
  EditDefaults defaults_;
  std::vector<std::string> templates_;
  bool has_templates_ = false;
  struct MomentNumbers {
    double ridge = 0, condition = 0;
  };
  std::map<std::int64_t, MomentFactor> factors_;   // by layer; of a single edit let go when it is used
  std::map<std::int64_t, MomentNumbers> moments_;  // of those that there are or were
  std::optional<EditMoment> moment_;
  double seconds_of_templates_ = 0, seconds_of_moments_ = 0;
};

}  // namespace rometrace::cli
