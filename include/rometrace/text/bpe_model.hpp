#pragma once

#include <string>

#include "rometrace/text/bpe_vocabulary.hpp"

namespace rometrace {

/// A serialised SentencePiece model that splits a piece written in the byte alphabet exactly as GPT-2's BPE does:
/// pieces in id order, score = -(merge rank), type BPE, no normalisation, no dummy prefix, no whitespace escape, an
/// unknown piece at the end; tokens that no merge can make are control pieces, so that they are never produced from
/// text. Exact for every list of merges (several for one token, out of order): the proof stands beside the code.
/// Throws Error: a merge of unknown tokens, too many tokens.
std::string to_sentencepiece_model(const BpeVocabulary& vocabulary);

}  // namespace rometrace
