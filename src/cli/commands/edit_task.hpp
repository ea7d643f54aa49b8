#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options/options.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/text/byte_range.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace::cli {

/// A fact that is to be edited, as texts.
struct EditTask {
  std::string prompt;
  ByteRange subject_span;
  std::string target;                       ///< the new object, as it was given
  std::string true_object;                  ///< the old one, as it was given; empty: the model's answer
  std::vector<std::int32_t> true_ids = {};  ///< where they are known: what the model said
  std::vector<std::string> paraphrases = {}, neighbours = {};
};

/// The old object's tokens: those that are known, else as it continues the prompt.
std::vector<std::int32_t> true_ids_of(const EditTask& task, const Tokenizer& tokenizer);

/// The task's prompt, to be traced; without a target.
TracePrompt trace_prompt_of(const EditTask& task, const Tokenizer& tokenizer);

/// The fact of the command line. What it leaves open is looked up in `facts` (those of --facts, the demo's) by its
/// prompt: the old object, the fact's other wordings, and as neighbours other facts of the relation, up to ten, those
/// with the same object first if there are any. Throws Error: no prompt, subject, target; a subject that is not in the
/// prompt, or there twice without --subject-at or {}.
EditTask read_task(const EditOptions& options, const Facts* facts);

/// A fact of read_edit_facts() that has both objects, by its own prompt and with its own lists.
EditTask task_of(const Fact& fact);

}  // namespace rometrace::cli
