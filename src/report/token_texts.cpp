#include "rometrace/report/token_texts.hpp"

namespace rometrace {

TokenTexts token_texts(const Trace& trace, const TracePrompt& prompt, const Tokenizer& tokenizer) {
  TokenTexts texts;
  texts.prompt.reserve(prompt.token_ids.size());
  for (const auto id : prompt.token_ids) {
    texts.prompt.push_back(tokenizer.token_bytes(id));
  }
  texts.answer = tokenizer.token_bytes(trace.answer_id);
  texts.prediction = tokenizer.token_bytes(trace.prediction_id);
  return texts;
}

}  // namespace rometrace
