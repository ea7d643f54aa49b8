#pragma once

#include <stdexcept>
#include <string>

namespace rometrace {

/// Input that cannot be used: a file, an option, a prompt. The one exception family of the library.
/// `what()` is one line without a final full stop: where, what was found, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Ends the work whatever the input is: who goes on with other facts after an Error lets this one pass.
class EndOfWork : public Error {
 public:
  using Error::Error;
};

/// The caller asked to stop (`std::stop_token`); nothing is wrong with the input.
class Interrupted : public EndOfWork {
 public:
  Interrupted() : EndOfWork("interrupted") {}
};

/// A file that was being used is no longer what it was.
class InputLost : public EndOfWork {
 public:
  using EndOfWork::EndOfWork;
};

}  // namespace rometrace
