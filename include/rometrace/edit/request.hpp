#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/text/byte_range.hpp"
#include "rometrace/text/tokenizer.hpp"

// Letters beside the model's (rometrace/model/decoder.hpp): R texts of a request, n requests, K tokens of an object.

namespace rometrace {

/// A text that is run for an edit.
struct EditText {
  std::vector<std::int32_t> token_ids;
  std::int64_t fact = 0;  ///< position of the subject's last token, where the fact is written
};

/// What is to be said, where: one request of an edit, tokenised.
struct EditRequest {
  std::string prompt;
  std::string subject;
  ByteRange subject_span = {};           ///< where `prompt` has it
  std::string target;                    ///< the new object, with the space before it
  std::vector<std::int32_t> target_ids;  ///< [K], as they continue the prompt
  std::vector<EditText> texts;  ///< [R] prompts without object: the bare one, then behind each template's prefix
  EditText subject_alone;       ///< up to the subject's last token; holds the rest of the subject in place
};

/// The object as it goes behind a prompt: with one space before it, unless it begins with one.
std::string spaced_object(std::string_view object);

/// `templates` [R - 1] each have one `{}`, which the prompt replaces; the bare prompt is added. `target` as
/// spaced_object() gives it. Throws Error: an empty target, a template with another number of `{}`, a text with its
/// object longer than `max_positions` tokens.
EditRequest make_request(const Tokenizer& tokenizer, const std::string& prompt, const ByteRange& subject,
                         const std::string& target, std::span<const std::string> templates, std::int64_t max_positions);

}  // namespace rometrace
