;; The story (story.cpp) on Guile's (system foreign).
(use-modules (system foreign) (rnrs bytevectors))

(define (libc name result . arguments)
  (let ((f (pointer->procedure result (dynamic-func name (dynamic-link)) arguments #:return-errno? #t)))
    (lambda values (call-with-values (lambda () (apply f values)) cons))))

(define (call name result types . values)
  (let ((answer (apply (apply libc name result types) values)))
    (if (negative? (car answer)) (error name (strerror (cdr answer))) (car answer))))

(define attr (make-bytevector 64 0))
(bytevector-s64-native-set! attr 8 4)
(bytevector-s64-native-set! attr 16 64)
(define queue
  (call "mq_open" int (list '* int int '*) (string->pointer "/story") (logior O_CREAT O_EXCL O_RDWR) #o600
        (bytevector->pointer attr)))
(define (send text priority)
  (call "mq_send" int (list int '* size_t int) queue (string->pointer text) (string-length text) priority))
(send "low" 1)
(send "high" 9)
(define text (make-bytevector 64 0))
(define priority (make-bytevector 4 0))
(define (receive)
  (let ((length (call "mq_receive" long (list int '* size_t '*) queue (bytevector->pointer text) 64
                      (bytevector->pointer priority))))
    (format #f "~a ~a" (pointer->string (bytevector->pointer text) length) (bytevector-u32-native-ref priority 0))))
(define first (receive))
(define second (receive))
(define deadline (make-bytevector 16 0))
(bytevector-s64-native-set! deadline 0 1)
(define third
  ((libc "mq_timedreceive" long int '* size_t '* '*) queue (bytevector->pointer text) 64 %null-pointer
   (bytevector->pointer deadline)))
(call "mq_close" int (list int) queue)
(call "mq_unlink" int (list '*) (string->pointer "/story"))
(format #t "~a ~a ~a~%" first second (if (equal? third (cons -1 ETIMEDOUT)) "timeout" third))
