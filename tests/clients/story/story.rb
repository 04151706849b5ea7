# The story (story.cpp) on Fiddle of Ruby's standard library.
require 'fiddle'

INT, LONG, POINTER, SIZE = Fiddle::TYPE_INT, Fiddle::TYPE_LONG, Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T
LIBC = Fiddle.dlopen('libc.so.6')

def call(name, types, *arguments, result: INT)
  value = Fiddle::Function.new(LIBC[name], types, result).call(*arguments)
  raise SystemCallError.new(name, Fiddle.last_error) if value < 0
  value
end

queue = call('mq_open', [POINTER, INT, INT, POINTER], '/story', File::CREAT | File::EXCL | File::RDWR, 0o600,
             [0, 4, 64, 0, 0, 0, 0, 0].pack('q*'))
call('mq_send', [INT, POINTER, SIZE, INT], queue, 'low', 3, 1)
call('mq_send', [INT, POINTER, SIZE, INT], queue, 'high', 4, 9)
text, priority = "\0" * 64, "\0" * 4
said = 2.times.map do
  length = call('mq_receive', [INT, POINTER, SIZE, POINTER], queue, text, 64, priority, result: LONG)
  "#{text[0, length]} #{priority.unpack1('L')}"
end
begin
  call('mq_timedreceive', [INT, POINTER, SIZE, POINTER, POINTER], queue, text, 64, nil, [1, 0].pack('q*'), result: LONG)
rescue Errno::ETIMEDOUT
  said << 'timeout'
end
call('mq_close', [INT], queue)
call('mq_unlink', [POINTER], '/story')
puts said.join(' ')
